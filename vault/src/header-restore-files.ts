import { basename, join } from 'node:path'
import { DurableRecord, readBounded } from '@holdfast/base'
import { z } from 'zod'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { digestOf } from './header-pack.ts'
import { type VaultDeps, vaultDirectory } from './state.ts'
import { filesBelow, shredAll } from './wipe.ts'

// The three files of a restore, in STATE/vaults/UUID/restore/: journal.json, redo.img with the new
// header, packed, and undo.img with the bytes it replaces. The images hold keyslot material, so they
// are overwritten before they are removed, and always before the journal.

const journalSchema = z.object({
  v: z.literal(1),
  uuid: z.uuid(),
  device: z.string(),
  header: z.string().optional(),
  because: z.string(),
  resurrects: z.array(z.string()),
  generation: z.int(),
  undoDigest: z.string().length(64),
  redoDigest: z.string().length(64),
  unproven: z.enum(['roll_back', 'keep']),
  /** `settled` once the device is as it shall stay and only files are left to shred. */
  phase: z.enum(['writing', 'settled']),
})

/** A restore under way. */
export type RestoreJournal = z.infer<typeof journalSchema>

const journalName = 'journal.json'
const imageLimit = 160 * 1024 * 1024

/** @throws Fault vault.unfinished_change while a restore is under way */
export async function requireNoJournal(deps: VaultDeps, uuid: string): Promise<void> {
  if ((await journalOf(deps, uuid).read()) === undefined) return
  throw vaultFault('vault.unfinished_change', `a header restore of ${uuid} is unfinished`, {
    hint: 'finish it first: holdfast vault header resume',
  })
}

/** Marks the device as it shall stay, then removes the files. */
export async function settle(deps: VaultDeps, journal: RestoreJournal): Promise<void> {
  await journalOf(deps, journal.uuid).write({ ...journal, phase: 'settled' })
  await clear(deps, journal.uuid)
}

/** Removes the files of a restore, the journal last. */
export async function clear(deps: VaultDeps, uuid: string): Promise<void> {
  await shredImages(deps, uuid)
  await journalOf(deps, uuid).clear()
}

/** Overwrites and removes the images, and what a write that a power cut stopped has left of one. */
export async function shredImages(deps: VaultDeps, uuid: string): Promise<void> {
  const files = await filesBelow(restoreDirectory(deps, uuid))
  await shredAll(files.filter((path) => basename(path) !== journalName))
}

/** @throws Fault vault.backup_malformed when the file is not the one the journal names */
export async function readImage(deps: VaultDeps, journal: RestoreJournal, which: 'undo' | 'redo') {
  const path = imagePath(deps, journal.uuid, which)
  const bytes = await readBounded(path, imageLimit)
  if (digestOf(bytes) === journal[`${which}Digest`]) return bytes
  throw vaultFault('vault.backup_malformed', `${path} is not what was written there`, {
    hint: `remove ${restoreDirectory(deps, journal.uuid)} and restore from the backup again`,
  })
}

/** Where the files of a restore lie while it is under way. */
export function restoreDirectory(deps: VaultDeps, uuid: string): string {
  return join(vaultDirectory(deps.stateDirectory, uuid), 'restore')
}

/** The header to be written (`redo`), or the bytes it replaces (`undo`). */
export function imagePath(deps: VaultDeps, uuid: string, which: 'undo' | 'redo'): string {
  return join(restoreDirectory(deps, uuid), `${which}.img`)
}

/** A restore's journal; empty when none is under way. */
export function journalOf(deps: VaultDeps, uuid: string): DurableRecord<RestoreJournal> {
  const path = join(restoreDirectory(deps, uuid), journalName)
  return new DurableRecord(path, (value) => journalSchema.parse(value))
}

/** The volume that a journal is about. */
export function volumeOf({ device, header }: RestoreJournal): VolumeRef {
  return header === undefined ? { device } : { device, header }
}
