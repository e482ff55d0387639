import type { Context } from './command.ts'

/** How far long work has come. */
export interface Progress extends Disposable {
  update(done: number, what: string): void
}

/**
 * A progress bar on standard error's terminal; a plain line for each step elsewhere, and silence
 * with `--json`.
 */
export async function progressOf(context: Context, total: number): Promise<Progress> {
  const { streams, json } = context
  if (json) return { update: () => undefined, [Symbol.dispose]: () => undefined }
  if (!streams.errIsTerminal) {
    return {
      update: (done, what) => streams.err(`[${done}/${total}] ${what}`),
      [Symbol.dispose]: () => undefined,
    }
  }
  const { default: library } = await import('cli-progress')
  const bar = new library.SingleBar({
    format: '{bar} {value}/{total} {what}',
    barsize: 30,
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    linewrap: false,
  })
  bar.start(total, 0, { what: '' })
  return {
    update: (done, what) => bar.update(done, { what: what.slice(0, 60) }),
    [Symbol.dispose]: () => bar.stop(),
  }
}
