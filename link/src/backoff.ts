/** Milliseconds. */
export interface Backoff {
  base: number
  most: number
}

/**
 * The next wait: decorrelated jitter, so that a fleet that lost its coordinator together does not
 * come back in step. Uniform between `base` and three times the previous wait, at most `most`.
 * `random` gives numbers in [0, 1).
 */
export function nextWait(previous: number, { base, most }: Backoff, random: () => number): number {
  const upper = Math.max(base, previous) * 3
  return Math.min(most, Math.round(base + random() * (upper - base)))
}
