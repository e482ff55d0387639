// A deadline is for who does not answer. A machine that was suspended or stood still has not waited for
// anybody meanwhile, and the answer may already be there when it goes on: it gets the time to look.

const steps = 10
const longestStep = 1_000

/**
 * Calls `over` once when this process has run for so many milliseconds. Time in which it stood still
 * counts as one step, a tenth of them and a second at most. Disposing calls it off.
 */
export function afterRunning(milliseconds: number, over: () => void): Disposable {
  const step = Math.max(1, Math.min(milliseconds / steps, longestStep))
  let left = milliseconds
  // An interval that has passed several times while nothing ran comes once.
  const timer = setInterval(() => {
    left -= step
    if (left > step / 2) return
    clearInterval(timer)
    over()
  }, step)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** As `AbortSignal.timeout`, but for milliseconds as `afterRunning` counts them, and until it is disposed. */
export function runningTimeout(
  milliseconds: number,
  reason?: Error,
): Disposable & { readonly signal: AbortSignal } {
  const late = new AbortController()
  const deadline = afterRunning(milliseconds, () => late.abort(reason))
  return { signal: late.signal, [Symbol.dispose]: () => deadline[Symbol.dispose]() }
}
