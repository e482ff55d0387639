import { openNodeDirectory } from './node-directory.ts'

// Started as a program by boot-state.test.ts, and killed after some effect: opens the directory given as
// its argument and writes a few states.

/** States that the child writes, in their order; each count is the number of wrong keys. */
export const childWrites = [1, 2, 3]

if (import.meta.main) {
  const [, , directory = ''] = process.argv
  await using node = await openNodeDirectory(directory)
  for (const wrongKeys of childWrites) await node.store.write({ ...node.state, wrongKeys })
}
