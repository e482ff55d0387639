import { readIfPresent, removeDurable, writeDurable } from '@holdfast/base'
import { keyserverFault } from './faults.ts'
import { statePath } from './state.ts'

// While this file exists the directory holds part of a backup. Serving part of the keys would turn
// clients away for good reason in their eyes, so it is refused until the restore was run again.

const name = 'restoring'

/** Marks the directory durably before the first key of a backup is written. */
export async function markRestoring(directory: string, text: string): Promise<void> {
  await writeDurable(statePath(directory, name), `${text}\n`)
}

/** Takes the mark away once every key has been proven. */
export async function clearRestoring(directory: string): Promise<void> {
  await removeDurable(statePath(directory, name))
}

/** True when a restore into the directory did not finish. */
export async function isRestoring(directory: string): Promise<boolean> {
  return (await readIfPresent(statePath(directory, name), 4096)) !== undefined
}

/** @throws Fault keyserver.change_unfinished */
export async function requireNoRestore(directory: string): Promise<void> {
  if (!(await isRestoring(directory))) return
  throw keyserverFault(
    'keyserver.change_unfinished',
    `a restore into ${directory} did not finish`,
    { hint: 'run the same holdfast keyserver restore again; it continues' },
  )
}
