import { subscribe } from 'node:diagnostics_channel'
import { openNodeDirectory } from './node-directory.ts'

// Started as a program by boot-state.test.ts: opens the directory given as its argument, writes a few
// states, and kills itself, as a power cut would, right after the n-th effect.

/** States that the child writes, in their order; each count is the number of wrong keys. */
export const childWrites = [1, 2, 3]

export async function bootStateChild(directory: string, killAt: number): Promise<void> {
  let effects = 0
  subscribe('holdfast:effect', () => {
    effects += 1
    if (effects === killAt) process.kill(process.pid, 'SIGKILL')
  })
  await using node = await openNodeDirectory(directory)
  for (const wrongKeys of childWrites) await node.store.write({ ...node.state, wrongKeys })
}
