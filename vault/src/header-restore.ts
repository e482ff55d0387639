import { resolve } from 'node:path'
import { ensureDirectory, isFault, Secret, systemClock, writeDurable } from '@holdfast/base'
import { type OpenOptions, open } from '@holdfast/seal'
import { headerPath, readMetadata, testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { checkSizes, writeHeaderImage } from './header.ts'
import { type HeaderBackup, openBackup } from './header-backup.ts'
import { gatherEvidence } from './header-evidence.ts'
import type { KeyslotIdentity } from './header-format.ts'
import { readRegion, sizeOf, writeRegion } from './header-io.ts'
import { judgeRestore, type Permission } from './header-judge.ts'
import { digestOf, pack, type Unpacked, unpack } from './header-pack.ts'
import { rememberHeader } from './header-record.ts'
import {
  clear,
  imagePath,
  journalOf,
  type RestoreJournal,
  readImage,
  requireNoJournal,
  restoreDirectory,
  settle,
  shredImages,
  volumeOf,
} from './header-restore-files.ts'
import { bindingsOf, takeInventory } from './inventory.ts'
import { lockVault, type VaultDeps, vaultAt } from './state.ts'

// Puts a header backup back. Before the device is touched three files are durable in restore/: the
// new header (redo), the bytes it replaces (undo), and the journal. After a crash the restore is
// finished from redo without asking the holders again; when the new header cannot be written or no
// way in opens, undo makes the device byte-identical to before. The two images are shredded at the
// end: they hold keyslot material.

export interface RestoreOptions extends Permission {
  /** A passphrase to prove the restored header with, beside what its tokens open. */
  passphrase?: Secret
  /** What to do when no way in could be proven. Default `roll_back`. */
  unproven?: 'roll_back' | 'keep'
  /** How the backup and the ways in are opened. */
  opening?: OpenOptions
}

export interface Restored {
  uuid: string
  /** Why the backup was taken for this device's. */
  because: string
  resurrected: readonly KeyslotIdentity[]
  /** The way in that was proven; absent only when an unproven header was to be kept. */
  proof: { keyslot: number; by: 'binding' | 'passphrase' } | undefined
}

/**
 * Restores a header from a sealed backup and proves that a way in opens.
 * @throws Fault vault.backup_foreign, vault.backup_stale, vault.header_size_mismatch,
 *   vault.restore_unproven, vault.unfinished_change, vault.destroyed, those of seal's `open`;
 *   after any of them the device's bytes are what they were before
 */
export async function restoreHeader(
  deps: VaultDeps,
  volume: VolumeRef,
  backup: HeaderBackup,
  options: RestoreOptions = {},
): Promise<Restored> {
  const { uuid } = backup.facts
  const vault = await vaultAt(deps, volume, uuid)
  await using _ = await lockVault(vault)
  await requireNoJournal(deps, uuid)
  const verdict = judgeRestore(backup.facts, await gatherEvidence(deps, volume, uuid), options)
  using unpacked = await openBackup(backup, deps.pins, options.opening)
  await checkSizes(volume, unpacked.facts)
  const journal = await prepare(deps, volume, unpacked, {
    because: verdict.because,
    resurrects: [...verdict.resurrects],
    generation: backup.facts.generation,
    unproven: options.unproven ?? 'roll_back',
  })
  return await perform(deps, journal, unpacked, options)
}

/**
 * Finishes a restore that a crash interrupted, without the holders. Undefined when there is none.
 * @throws as `restoreHeader`
 */
export async function resumeRestore(
  deps: VaultDeps,
  uuid: string,
  options: Pick<RestoreOptions, 'passphrase' | 'opening'> = {},
): Promise<Restored | undefined> {
  // Locked before looking: a restore just being prepared has images and no journal yet.
  await using _ = await lockVault(await vaultAt(deps, { device: uuid }, uuid))
  const journal = await journalOf(deps, uuid).read()
  if (journal === undefined) {
    await shredImages(deps, uuid)
    return undefined
  }
  if (journal.phase === 'settled') {
    await clear(deps, uuid)
    return undefined
  }
  using unpacked = await readRedo(deps, journal)
  return await perform(deps, journal, unpacked, options)
}

/** The header being restored. If its file is damaged, the old bytes go back before the fault. */
async function readRedo(deps: VaultDeps, journal: RestoreJournal): Promise<Unpacked> {
  try {
    using packed = Secret.take(await readImage(deps, journal, 'redo'))
    return unpack(packed, 'in the restore journal')
  } catch (error) {
    if (!isFault(error)) throw error
    using undo = Secret.take(await readImage(deps, journal, 'undo'))
    await writeRegion(headerPath(volumeOf(journal)), undo.reveal())
    await settle(deps, journal)
    throw error
  }
}

async function prepare(
  deps: VaultDeps,
  volume: VolumeRef,
  unpacked: Unpacked,
  rest: Pick<RestoreJournal, 'because' | 'resurrects' | 'generation' | 'unproven'>,
): Promise<RestoreJournal> {
  const { facts, image } = unpacked
  await shredImages(deps, facts.uuid)
  await ensureDirectory(restoreDirectory(deps, facts.uuid))
  using undo = Secret.take(await readRegion(headerPath(volume), facts.length))
  using redo = pack(image, facts, {})
  await writeDurable(imagePath(deps, facts.uuid, 'undo'), undo.reveal())
  await writeDurable(imagePath(deps, facts.uuid, 'redo'), redo.reveal())
  const journal: RestoreJournal = {
    ...{ v: 1, uuid: facts.uuid, device: resolve(volume.device), phase: 'writing', ...rest },
    ...(volume.header === undefined ? {} : { header: resolve(volume.header) }),
    undoDigest: digestOf(undo.reveal()),
    redoDigest: digestOf(redo.reveal()),
  }
  await journalOf(deps, facts.uuid).write(journal)
  return journal
}

async function perform(
  deps: VaultDeps,
  journal: RestoreJournal,
  unpacked: Unpacked,
  options: RestoreOptions,
): Promise<Restored> {
  const { uuid, because, resurrects, generation } = journal
  const { facts, image } = unpacked
  const volume = volumeOf(journal)
  using undo = Secret.take(await readImage(deps, journal, 'undo'))
  let proof: Restored['proof']
  try {
    await writeHeaderImage(volume, image, facts, undo)
    proof = await proveWayIn(deps, volume, options)
    if (proof === undefined && journal.unproven === 'roll_back') throw unproven(volume)
  } catch (error) {
    await writeRegion(headerPath(volume), undo.reveal())
    await settle(deps, journal)
    throw error
  }
  const deviceSize = await sizeOf(volume.device)
  const now = (deps.clock ?? systemClock).now()
  // A generation of its own, so that this header is newer than every backup made before it.
  const seen = { volume, facts, deviceSize, now, generation: generation + 1 }
  await rememberHeader(deps.stateDirectory, seen)
  await settle(deps, journal)
  return { uuid, because, resurrected: resurrects, proof }
}

/** The first way in that opens: a passphrase that was given, then what the tokens hold. */
async function proveWayIn(
  deps: VaultDeps,
  volume: VolumeRef,
  options: RestoreOptions,
): Promise<Restored['proof']> {
  const inventory = takeInventory(await readMetadata(volume), deps.pins)
  if (options.passphrase !== undefined) {
    for (const { keyslot } of inventory.slots) {
      if (await testPassphrase(volume, options.passphrase, keyslot)) {
        return { keyslot, by: 'passphrase' }
      }
    }
  }
  // Machines first: the holders have just been asked once.
  const bindings = [...bindingsOf(inventory), ...bindingsOf(inventory, ['recovery'])]
  for (const { jwe, keyslot } of bindings) {
    try {
      using passphrase = await open(deps.pins, jwe, options.opening)
      if (await testPassphrase(volume, passphrase, keyslot)) return { keyslot, by: 'binding' }
    } catch (error) {
      if (!isFault(error)) throw error
    }
  }
  return undefined
}

function unproven(volume: VolumeRef): Error {
  return vaultFault(
    'vault.restore_unproven',
    `no way in opens ${volume.device} with the restored header: the old bytes are back`,
    {
      hint: 'make a key server or holder available, or give a passphrase; or keep it: --keep-unproven',
    },
  )
}
