/** The value below which the fraction `q` of the samples lies, by nearest rank; NaN without samples. */
export function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  const rank = Math.min(Math.max(Math.ceil(q * sorted.length), 1), sorted.length)
  return sorted[rank - 1] ?? Number.NaN
}

/** The middle value, or the mean of the middle two; NaN without samples. */
export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b)
  const upper = sorted[sorted.length >> 1] ?? Number.NaN
  const lower = sorted[(sorted.length - 1) >> 1] ?? Number.NaN
  return (lower + upper) / 2
}

/** Rounds to three significant digits more than anybody should read into a figure. */
export function rounded(value: number): number {
  return Number.isFinite(value) ? Number(value.toPrecision(4)) : value
}

/** Named figures of one measurement, or of one round of it. */
export type Figures = Readonly<Record<string, number>>

/** The median of every figure over the rounds, by name. */
export function medians(rounds: readonly Figures[]): Record<string, number> {
  const names = Object.keys(rounds[0] ?? {})
  return Object.fromEntries(
    names.map((name) => [name, rounded(median(rounds.map((round) => round[name] ?? Number.NaN)))]),
  )
}

/** Whether more or less of a figure is better; a ratio above 1 always means that ours is better. */
export type Direction = 'more' | 'less'

/** How many times better ours is than the peer's. */
export function timesBetter(ours: number, peer: number, direction: Direction): number {
  return rounded(direction === 'more' ? ours / peer : peer / ours)
}

/** The median of the ratios of rounds measured next to each other: drift of the machine cancels. */
export function pairwise(
  ours: readonly Figures[],
  peer: readonly Figures[],
  name: string,
  direction: Direction,
): number {
  const pairs = Math.min(ours.length, peer.length)
  const ratios = Array.from({ length: pairs }, (_, round) =>
    timesBetter(ours[round]?.[name] ?? Number.NaN, peer[round]?.[name] ?? Number.NaN, direction),
  )
  return rounded(median(ratios))
}
