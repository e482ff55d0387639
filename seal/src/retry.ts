import { type Fault, systemClock } from '@holdfast/base'
import { asFault } from './faults.ts'

/** Milliseconds: the scale of the first wait, and the longest. */
const backoff = { initialDelay: 500, maxDelay: 30_000 }

/** The longest wait that a server's Retry-After can ask for, in seconds. */
const mostAskedFor = 60

/** Waits, and rejects with the signal's reason as soon as it is aborted. */
export type Sleep = (milliseconds: number, signal?: AbortSignal) => Promise<void>

/**
 * Tries until it succeeds or the signal says stop, with decorrelated jitter so that a fleet that
 * lost power together does not come back in step. A server's Retry-After is honoured up to a
 * minute. Every failure is retried: at boot the alternative is never to open.
 */
export async function untilOpen<T>(
  attempt: () => Promise<T>,
  signal: AbortSignal,
  onFailure: (fault: Fault, wait: number) => void,
  sleep: Sleep = systemClock.sleep,
): Promise<T> {
  // Loaded only here: a single open has no use for it and should start fast. Of cockatiel only
  // the back-off serves; its own loop waits on a timer that no signal stops.
  const { ExponentialBackoff } = await import('cockatiel')
  let step = new ExponentialBackoff(backoff).next()
  for (;;) {
    signal.throwIfAborted()
    try {
      return await attempt()
    } catch (error) {
      signal.throwIfAborted()
      const fault = asFault(error)
      const wait = Math.max(step.duration, askedToWait(fault))
      onFailure(fault, wait)
      await sleep(wait, signal)
      step = step.next(undefined)
    }
  }
}

function askedToWait({ details }: Fault): number {
  const seconds = details?.retryAfter
  if (typeof seconds !== 'number' || !(seconds > 0)) return 0
  return Math.min(seconds, mostAskedFor) * 1000
}

/**
 * The work's result, or the signal's reason as soon as it is aborted, for work that may not stop
 * by itself. A result that comes too late is disposed of.
 */
export async function untilAborted<T extends Disposable>(
  work: Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>()
  const stop = () => reject(signal.reason)
  signal.addEventListener('abort', stop, { once: true })
  if (signal.aborted) stop()
  let taken = false
  try {
    const result = await Promise.race([work, stopped])
    taken = true
    return result
  } finally {
    signal.removeEventListener('abort', stop)
    if (!taken) {
      work.then(
        (late) => late[Symbol.dispose](),
        () => undefined,
      )
    }
  }
}
