import { readBounded, shredDurable } from '@holdfast/base'
import { jweLimit } from '@holdfast/crypto'
import { inspect, type Policy } from '@holdfast/seal'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { readHeaderImage } from './header.ts'
import {
  type BackupFacts,
  type BackupList,
  backupHeader,
  listBackups,
  plainPath,
} from './header-backup.ts'
import { type KeyslotIdentity, removedKeyslots } from './header-format.ts'
import type { CompletedChange, VaultDeps } from './state.ts'

// A header backup from before a rekey opens the volume with the key that the rekey took away. So
// after each change the new header is backed up first, and only then are such backups destroyed.

/** A backup that gives back keyslots which the header no longer has. */
export interface StaleBackup {
  path: string
  /** `undefined` for a broken file: what it holds is not known. */
  facts: BackupFacts | undefined
  resurrects: readonly KeyslotIdentity[]
}

/** Picks the backups that would resurrect a removed keyslot, and broken files. Pure. */
export function staleAmong(list: BackupList, keyslots: readonly KeyslotIdentity[]): StaleBackup[] {
  const stale = list.backups.flatMap(({ path, facts }) => {
    const resurrects = removedKeyslots(facts.keyslots, keyslots)
    return resurrects.length === 0 ? [] : [{ path, facts, resurrects }]
  })
  return [...stale, ...list.broken.map(({ path }) => ({ path, facts: undefined, resurrects: [] }))]
}

/** The stale backups of a volume, judged by its header now. */
export async function staleBackups(deps: VaultDeps, volume: VolumeRef): Promise<StaleBackup[]> {
  using header = await readHeaderImage(volume)
  return staleAmong(
    await listBackups(deps.stateDirectory, header.facts.uuid),
    header.facts.keyslots,
  )
}

/**
 * Destroys the backups that would resurrect a removed keyslot, after making sure that a backup of
 * the header as it is now exists. Running it again after a crash finishes the work.
 * @returns what was destroyed
 * @throws Fault vault.backup_absent when there is no backup of the present header to keep
 */
export async function destroyStaleBackups(
  deps: VaultDeps,
  volume: VolumeRef,
): Promise<StaleBackup[]> {
  using header = await readHeaderImage(volume)
  const { uuid, digest, keyslots } = header.facts
  const list = await listBackups(deps.stateDirectory, uuid)
  const stale = staleAmong(list, keyslots)
  if (stale.length === 0) return []
  const fresh = list.backups.findLast((backup) => backup.facts.digest === digest)
  if (fresh === undefined) {
    throw vaultFault('vault.backup_absent', `the header of ${volume.device} has no backup yet`, {
      hint: 'make one first: holdfast vault header backup',
    })
  }
  inspect(deps.pins, (await readBounded(fresh.path, jweLimit)).toString('utf8'))
  for (const { path } of stale) await destroyBackup(path)
  return stale
}

/** Overwrites and removes a backup, its plain file last so that a crash leaves it listed. */
export async function destroyBackup(path: string): Promise<void> {
  await shredDurable(path)
  await shredDurable(plainPath(path))
}

/**
 * What to give as `afterChange`: each change of a header is backed up, sealed under `policy`, and
 * the backups that would undo it are destroyed.
 */
export function keepBackups(
  deps: VaultDeps,
  policy: Policy,
): (change: Pick<CompletedChange, 'volume'>) => Promise<void> {
  return async ({ volume }) => {
    await backupHeader(deps, volume, policy)
    await destroyStaleBackups(deps, volume)
  }
}
