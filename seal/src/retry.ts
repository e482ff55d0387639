import { setTimeout as delay } from 'node:timers/promises'
import { Fault } from '@holdfast/base'

/** Milliseconds: the first wait, and the longest. */
const backoff = { initialDelay: 500, maxDelay: 30_000 }

/**
 * Tries until it succeeds or the signal says stop, with decorrelated jitter so that a fleet that
 * lost power together does not come back in step. A server's Retry-After is honoured up to a
 * minute. Every failure is retried: at boot the alternative is never to open.
 */
export async function untilOpen<T>(
  attempt: () => Promise<T>,
  signal: AbortSignal,
  onFailure: (fault: Fault, wait: number) => void,
): Promise<T> {
  // Loaded only here: a single open has no use for it and should start fast.
  const { ExponentialBackoff, handleWhen, retry } = await import('cockatiel')
  const policy = retry(
    handleWhen(() => !signal.aborted),
    {
      maxAttempts: Number.POSITIVE_INFINITY,
      backoff: new ExponentialBackoff(backoff),
    },
  )
  policy.onFailure(() => undefined)
  let askedToWait = 0
  policy.onRetry((event) => {
    if (!('error' in event) || !(event.error instanceof Fault)) return
    const { retryAfter } = event.error.details ?? {}
    askedToWait = typeof retryAfter === 'number' ? Math.min(retryAfter, 60) * 1000 : 0
    onFailure(event.error, Math.max(event.delay, askedToWait))
  })
  return await policy.execute(async () => {
    const wait = askedToWait
    askedToWait = 0
    if (wait > 0) await delay(wait, undefined, { signal })
    return await attempt()
  }, signal)
}
