import type { FleetProgress } from '@holdfast/drills'
import type { Context } from './command.ts'
import { type Progress, progressOf } from './progress.ts'

/** How far the start of the local fleet has come. */
export interface UpProgress extends Disposable {
  show(progress: FleetProgress): void
}

/** A bar or plain lines on standard error; with `--json` one object a line there. */
export async function upProgress(context: Context, total: number): Promise<UpProgress> {
  const { streams, json } = context
  if (json) {
    return {
      show: (progress) => streams.err(JSON.stringify({ progress })),
      [Symbol.dispose]: () => undefined,
    }
  }
  const progress: Progress = await progressOf(context, total)
  return {
    show: ({ done, step }) => progress.update(done, step),
    [Symbol.dispose]: () => progress[Symbol.dispose](),
  }
}
