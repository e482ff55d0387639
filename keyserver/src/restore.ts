import { utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, ensureDirectory, systemClock, writeDurable } from '@holdfast/base'
import type { Pins } from '@holdfast/seal'
import { type BackupContents, openBackup } from './backup.ts'
import { folderOf, type KeySet, prefixFolder, readDirectory } from './directory.ts'
import { keyserverFault } from './faults.ts'
import { proveKeys } from './proof.ts'
import { clearRestoring, isRestoring, markRestoring } from './restore-marker.ts'
import { changeState, type KeyState, lockDirectory, readState } from './state.ts'
import { addUsage, readUsage } from './usage.ts'

// Restoring. While it runs a marker keeps the directory from being served; keys are written hidden
// ones first; a crash anywhere leaves the marker, and the same restore run again continues.

export interface RestoreRequest {
  readonly directory: string
  readonly pins: Pins
  /** The backup: a compact JWE. */
  readonly sealed: string
  /**
   * Add the backup's keys to a directory that holds others. Those it advertises come in hidden when
   * the directory advertises its own.
   */
  readonly merge?: boolean
  /** Bring back keys that were destroyed here on purpose. */
  readonly revive?: boolean
  /** Thumbprints (S256) of keys that the backup must hold: those that clients have pinned. */
  readonly expect?: readonly string[]
  readonly signal?: AbortSignal
}

export interface RestoreReport {
  /** When the backup was made, milliseconds since 1970. */
  readonly made: number
  readonly restored: readonly string[]
  /** Keys of the backup that were already there. */
  readonly present: readonly string[]
  /** Keys of the backup that were destroyed here and stay destroyed. */
  readonly destroyed: readonly string[]
  /** Keys with which a recovery or a signature was performed after the restore. */
  readonly proven: readonly string[]
}

type BackupKey = BackupContents['keys'][number]

export interface RestorePlan {
  readonly write: readonly { readonly key: BackupKey; readonly file: string }[]
  readonly present: readonly string[]
  readonly destroyed: readonly string[]
}

/**
 * Decides which files to write, hidden ones first.
 * @throws Fault keyserver.directory_not_empty when the directory holds keys the backup does not,
 *   and merging was not asked for
 */
export function planRestore(
  contents: BackupContents,
  current: Pick<KeySet, 'keys' | 'path'>,
  destroyed: KeyState['destroyed'],
  { merge = false, revive = false }: Pick<RestoreRequest, 'merge' | 'revive'>,
): RestorePlan {
  const has = (list: readonly { kid: string; prefix: string }[], key: BackupKey): boolean =>
    list.some(({ kid, prefix }) => kid === key.kid && prefix === key.prefix)
  const foreign = current.keys.find(
    (key) => !contents.keys.some(({ kid, prefix }) => kid === key.kid && prefix === key.prefix),
  )
  if (foreign !== undefined && !merge) {
    throw keyserverFault(
      'keyserver.directory_not_empty',
      `${current.path} holds the key ${foreign.kid}, which the backup does not`,
      { hint: 'restore into an empty directory, or --merge to keep both sets' },
    )
  }
  const gone = (key: BackupKey) => !revive && destroyed[key.kid] !== undefined
  const write = contents.keys
    .filter((key) => !has(current.keys, key) && !gone(key))
    .map((key) => ({ key, file: foreign === undefined ? key.file : hiddenFile(key) }))
    .sort((a, b) => Number(isHiddenFile(b.file)) - Number(isHiddenFile(a.file)))
  return {
    write,
    present: contents.keys.filter((key) => has(current.keys, key)).map((key) => key.kid),
    destroyed: contents.keys.filter(gone).map((key) => key.kid),
  }
}

function isHiddenFile(file: string): boolean {
  return file.slice(file.lastIndexOf('/') + 1).startsWith('.')
}

/** A prefix has a set of its own, so its keys keep their place. */
function hiddenFile(key: BackupKey): string {
  return key.hidden || key.prefix !== '' ? key.file : `.${key.kid}.jwk`
}

/**
 * Restores a backup into an empty directory, into one that holds some of the same keys, or, asked to
 * merge, beside others. Success means that a recovery was performed with every exchange key read
 * back from the disk.
 * @throws Fault keyserver.directory_not_empty, keyserver.backup_malformed,
 *   keyserver.backup_foreign, keyserver.backup_unverified, and those of open
 */
export async function restore(
  request: RestoreRequest,
  clock: Clock = systemClock,
): Promise<RestoreReport> {
  const { directory, pins, sealed, signal } = request
  const contents = await openBackup(pins, sealed, signal)
  requireExpected(contents, request.expect ?? [])
  await ensureDirectory(directory)
  await using _ = await lockDirectory(directory, 'change', clock)
  const current = await readDirectory(directory)
  const state = mergeState(await readState(directory), contents.state, request.revive ?? false)
  const plan = planRestore(contents, current, state.destroyed, request)
  const first = !(await isRestoring(directory))
  await markRestoring(directory, new Date(clock.now()).toISOString())
  await changeState(directory, () => state)
  for (const { key, file } of plan.write) await writeKeyFile(directory, key, file)
  if (first || Object.keys(await readUsage(directory)).length === 0) {
    await addUsage(directory, contents.usage)
  }
  const proven = await proveRestored(directory, contents, plan)
  await clearRestoring(directory)
  const { write, present, destroyed } = plan
  return {
    made: contents.made,
    restored: write.map(({ key }) => key.kid),
    present,
    destroyed,
    proven,
  }
}

/** The seal proves who can open a backup, not whose keys are in it: that is what a pin is for. */
function requireExpected({ keys }: BackupContents, expected: readonly string[]): void {
  const absent = expected.filter((kid) => !keys.some((key) => key.kid === kid))
  if (absent.length === 0) return
  throw keyserverFault(
    'keyserver.backup_foreign',
    `the backup does not hold the key ${absent.join(', ')}, so it is not of the server that was expected`,
    {
      hint: 'nothing was written; take the backup of that server, or one that is not older than the key',
    },
  )
}

async function writeKeyFile(directory: string, key: BackupKey, file: string): Promise<void> {
  if (key.prefix !== '') {
    await ensureDirectory(join(directory, prefixFolder))
    await ensureDirectory(folderOf(directory, key.prefix))
  }
  const path = join(directory, file)
  await writeDurable(path, key.text, { mode: 0o440 })
  await utimes(path, key.created / 1000, key.created / 1000) // keeps the preferred key first
}

/** The directory's own marks win; nothing destroyed here is forgotten unless it is to be revived. */
function mergeState(own: KeyState, saved: KeyState, revive: boolean): KeyState {
  return {
    ...own,
    hidden: { ...saved.hidden, ...own.hidden },
    compromised: { ...saved.compromised, ...own.compromised },
    destroyed: revive ? {} : { ...saved.destroyed, ...own.destroyed },
  }
}

async function proveRestored(
  directory: string,
  contents: BackupContents,
  { destroyed }: RestorePlan,
): Promise<string[]> {
  const { keys } = await readDirectory(directory)
  const wanted = contents.keys.filter((key) => !destroyed.includes(key.kid))
  const missing = wanted.find(
    (key) => !keys.some(({ kid, prefix }) => kid === key.kid && prefix === key.prefix),
  )
  if (missing !== undefined) throw unverified(directory, `the key ${missing.kid} is not there`)
  return await proveKeys(keys)
}

function unverified(directory: string, reason: string): Error {
  return keyserverFault(
    'keyserver.backup_unverified',
    `the restored directory ${directory} cannot be used: ${reason}`,
  )
}
