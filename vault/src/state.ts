import { join } from 'node:path'
import {
  appendDurable,
  type Clock,
  DurableRecord,
  ensureDirectory,
  type JsonObject,
  lock,
  systemClock,
} from '@holdfast/base'
import type { Pins } from '@holdfast/seal'
import { z } from 'zod'
import { readUuid, type VolumeRef } from './cryptsetup.ts'
import type { Metadata } from './metadata.ts'

// What this machine remembers about a volume, beside the volume:
//   STATE/vaults/UUID/record.json   what it is, and slots whose passphrase has been shown
//   STATE/vaults/UUID/proofs.json   the last proof of every way in
//   STATE/vaults/UUID/journal.json  the change under way, if any
//   STATE/vaults/UUID/audit.log     one JSON line per event, only ever appended to
// There is never a secret in any of them. Keyslots are named with their salt, so that what was
// written about one is not believed of another that got its number later.

/** A change of a volume's header that has just been completed. */
export interface CompletedChange {
  volume: VolumeRef
  uuid: string
  operation: string
  /** The keyslot that was written, if one was. */
  added?: number
  /** Keyslots that were destroyed: a header backup that still has them would resurrect them. */
  removed: readonly { keyslot: number; salt: string }[]
}

/** What every operation on a volume needs. */
export interface VaultDeps {
  pins: Pins
  /** Where records, proofs, journals and the audit log are kept. */
  stateDirectory: string
  clock?: Clock
  /** Who is asking, for the audit log. */
  actor?: string
  /**
   * Whose the vault is: holders who are asked for a way in see it, authenticated, and open it for
   * nobody else. A node's id; default the volume's uuid.
   */
  owner?: string
  /** Called after each change of the header, to back it up. */
  afterChange?: (change: CompletedChange) => Promise<void>
}

export interface SlotIdentity {
  keyslot: number
  salt: string
}

const identity = { keyslot: z.int().min(0).max(31), salt: z.string() }
const recordSchema = z.object({
  v: z.literal(1),
  uuid: z.string(),
  device: z.string(),
  header: z.string().optional(),
  /** `creating` until every way in has been made: only such a volume may be formatted again. */
  state: z.enum(['creating', 'ready']),
  /** Slots whose passphrase was shown to somebody and must be replaced. */
  regenerate: z.array(z.object({ ...identity, reason: z.string(), at: z.string() })),
})
const proofSchema = z.object({
  ...identity,
  /** When it was tried, ISO 8601. */
  at: z.string(),
  state: z.enum(['proven', 'failed', 'not_tried']),
  /** When it was last proven, ISO 8601. */
  provenAt: z.string().optional(),
  /** Per-pin outcome as `seal` reports it. */
  rehearsal: z.record(z.string(), z.unknown()).optional(),
})
const proofsSchema = z.object({ v: z.literal(1), proofs: z.array(proofSchema) })

export type VaultRecord = z.infer<typeof recordSchema>
export type Proof = z.infer<typeof proofSchema>

/** One volume together with what is remembered of it. */
export interface Vault {
  deps: VaultDeps
  pins: Pins
  clock: Clock
  volume: VolumeRef
  uuid: string
  directory: string
}

/** Finds the volume's UUID and makes its state directory. @throws Fault vault.not_luks ... */
export async function openVault(deps: VaultDeps, volume: VolumeRef): Promise<Vault> {
  return await vaultAt(deps, volume, await readUuid(volume))
}

/** The same for a volume whose UUID is known, be it formatted or not. */
export async function vaultAt(deps: VaultDeps, volume: VolumeRef, uuid: string): Promise<Vault> {
  const directory = vaultDirectory(deps.stateDirectory, uuid)
  await ensureDirectory(directory)
  return { deps, pins: deps.pins, clock: deps.clock ?? systemClock, volume, uuid, directory }
}

/** The directory of one volume's records. */
export function vaultDirectory(stateDirectory: string, uuid: string): string {
  return join(stateDirectory, 'vaults', uuid)
}

/** Keeps other commands from changing this volume. @throws Fault base.locked */
export async function lockVault(vault: Vault): Promise<AsyncDisposable> {
  return await lock(join(vault.directory, 'lock'), vault.volume.device)
}

/** The moment, ISO 8601 UTC. */
export function timestamp(vault: Vault): string {
  return new Date(vault.clock.now()).toISOString()
}

/** Appends one event to the audit log. `facts` must not hold a secret. */
export async function audit(vault: Vault, event: string, facts: JsonObject = {}): Promise<void> {
  const actor = vault.deps.actor ?? 'unknown'
  const line = { at: timestamp(vault), event, actor, device: vault.volume.device, ...facts }
  await appendDurable(join(vault.directory, 'audit.log'), `${JSON.stringify(line)}\n`)
}

function recordFile(vault: Vault): DurableRecord<VaultRecord> {
  return new DurableRecord(join(vault.directory, 'record.json'), (value) =>
    recordSchema.parse(value),
  )
}

function proofFile(vault: Vault): DurableRecord<z.infer<typeof proofsSchema>> {
  return new DurableRecord(join(vault.directory, 'proofs.json'), (value) =>
    proofsSchema.parse(value),
  )
}

/** What is remembered of the volume; a fresh record when there is none. */
export async function readRecord(vault: Vault): Promise<VaultRecord> {
  const { device, header } = vault.volume
  const place = { device, ...(header === undefined ? {} : { header }) }
  const stored = await recordFile(vault).read()
  const fresh = { v: 1, uuid: vault.uuid, state: 'ready', regenerate: [] } as const
  return { ...fresh, regenerate: [], ...stored, ...place }
}

/** True when this machine has a record of the volume. */
export async function hasRecord(vault: Vault): Promise<boolean> {
  return (await recordFile(vault).read()) !== undefined
}

export async function writeRecord(vault: Vault, record: VaultRecord): Promise<void> {
  await recordFile(vault).write(record)
}

/** Marks a slot for regeneration, durably. Takes the volume's lock. */
export async function markForRegeneration(
  vault: Vault,
  slot: SlotIdentity,
  reason: string,
): Promise<void> {
  await using _held = await lockVault(vault)
  const record = await readRecord(vault)
  const { keyslot, salt } = slot
  const others = record.regenerate.filter((mark) => !isSame(mark, slot))
  const mark = { keyslot, salt, reason, at: timestamp(vault) }
  await writeRecord(vault, { ...record, regenerate: [...others, mark] })
}

/** The last proof of every way in that the header still has. */
export async function readProofs(vault: Vault, metadata: Metadata): Promise<readonly Proof[]> {
  const stored = await proofFile(vault).read()
  return (stored?.proofs ?? []).filter(
    (proof) => metadata.keyslots.get(proof.keyslot)?.salt === proof.salt,
  )
}

/** Records proofs, newest wins, and forgets those of slots that are gone. */
export async function writeProofs(
  vault: Vault,
  metadata: Metadata,
  fresh: readonly Proof[],
): Promise<void> {
  const before = await readProofs(vault, metadata)
  const living = fresh.filter(({ keyslot, salt }) => metadata.keyslots.get(keyslot)?.salt === salt)
  const merged = living.map((proof) => {
    const old = before.find((candidate) => isSame(candidate, proof))
    const provenAt = proof.state === 'proven' ? proof.at : old?.provenAt
    return { ...proof, ...(provenAt === undefined ? {} : { provenAt }) }
  })
  const kept = before.filter((old) => !fresh.some((proof) => isSame(old, proof)))
  const proofs = [...kept, ...merged].sort((a, b) => a.keyslot - b.keyslot)
  await proofFile(vault).write({ v: 1, proofs })
}

/** True when both name the same keyslot in the same life. */
export function isSame(a: SlotIdentity, b: SlotIdentity): boolean {
  return a.keyslot === b.keyslot && a.salt === b.salt
}
