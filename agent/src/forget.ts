import { readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfPresent, removeDurable, shredDurable, writeDurable } from '@holdfast/base'
import { isReleaseLog } from './release-log.ts'

// Panic 2 and 3 end with the node's identity: its keys, its boot state, what it guards for others,
// the coordinator's documents. A mark is written first, so that a start after a power cut goes on and
// never meets half an identity. What stays is evidence, and what the holders need: the receipts, the
// sealed header backups, the audit log and the release log.

const mark = 'forgetting'
const kept = ['forgetting', 'lock', 'panic', 'receipts', 'vaults']

/** Destroys the identity in a node's directory; bears being done again. */
export async function forgetNode(path: string): Promise<void> {
  await writeDurable(join(path, mark), '')
  await finishForgetting(path)
}

/** Goes on with a destruction that was interrupted; true when there was one. */
export async function finishForgetting(path: string): Promise<boolean> {
  if ((await readIfPresent(join(path, mark), 16)) === undefined) return false
  // The keys first: without them the rest is worth nothing.
  for (const name of ['keys.json', 'keys-new.json']) await shredDurable(join(path, name))
  for (const entry of await readdir(path)) {
    if (!kept.includes(entry) && !isReleaseLog(entry)) await shredAll(join(path, entry))
  }
  await removeDurable(join(path, mark))
  return true
}

async function shredAll(path: string): Promise<void> {
  const below = await readdir(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTDIR') return undefined
    throw error
  })
  if (below === undefined) {
    await shredDurable(path)
    return
  }
  for (const entry of below) await shredAll(join(path, entry))
  await rmdir(path)
}
