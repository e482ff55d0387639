import { isFault, messageOf, type Secret } from '@holdfast/base'
import { open, type Rehearsal } from '@holdfast/seal'
import {
  addKey,
  importToken,
  type KeyDerivation,
  killSlot,
  readMetadata,
  removeToken,
  testPassphrase,
} from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { putBack, saveHeader } from './header-undo.ts'
import { type Inventory, takeInventory } from './inventory.ts'
import { type JournalEntry, journalEntry, journalOf } from './journal.ts'
import type { Metadata } from './metadata.ts'
import type { Plan, Step } from './plan.ts'
import {
  audit,
  type CompletedChange,
  type Proof,
  timestamp,
  type Vault,
  writeProofs,
} from './state.ts'
import { type Purpose, readToken } from './token.ts'

// Carries a plan out. Always true here: at least one way in that opened before opens at every
// moment; what is added is proven by reading it back and opening it through its live pins before
// anything is removed; a failure before the commit puts the header back byte for byte; a crash at any
// line is settled by resume.ts from the journal.

/** What a change needs besides its plan. */
export interface Means {
  operation: string
  purpose: Purpose
  /** Opens the volume as it is; needed to add a keyslot. */
  existing?: Access
  /** The passphrase of the new keyslot. */
  fresh?: Secret
  derivation?: KeyDerivation
  /** How the new sealed passphrase did when it was just rehearsed; none for an owner's. */
  rehearsal?: Rehearsal
  /** Stops the change while it can still be undone. */
  signal?: AbortSignal
}

/** A passphrase that opens the volume, and the keyslot it opens, if known. */
export interface Access extends Disposable {
  passphrase: Secret
  keyslot: number | undefined
}

/** What became of a change. */
export interface ChangeResult {
  mode: Plan['mode']
  keyslot: number | undefined
  token: number | undefined
  removed: { keyslot: number; salt: string } | undefined
  proof: Proof | undefined
  /** Why the header backup that follows a change could not be made; the change itself stands. */
  backupProblem?: string
}

/** Applies a plan. @throws the cause of the failure, after putting the header back */
export async function applyPlan(
  vault: Vault,
  inventory: Inventory,
  plan: Plan,
  means: Means,
): Promise<ChangeResult> {
  const { metadata } = inventory
  using saved = await saveHeader(vault.volume, metadata)
  const journal = journalOf(vault)
  const facts = { operation: means.operation, at: timestamp(vault), purpose: means.purpose }
  const entry = journalEntry(plan, { ...facts, before: saltsOf(metadata) })
  await journal.write(entry)
  const work: Work = { vault, means, entry, proof: undefined }
  try {
    for (const step of plan.steps) {
      if (!entry.committed) means.signal?.throwIfAborted()
      await takeStep(work, step)
    }
  } catch (error) {
    if (!entry.committed) {
      await putBack(vault.volume, metadata, saved)
      await journal.clear()
      throw error
    }
    throw unfinished(vault, error)
  }
  return await concludeChange(vault, entry, work.proof)
}

/** Clears the journal, writes the audit line and has the header backed up. */
export async function concludeChange(
  vault: Vault,
  entry: JournalEntry,
  proof: Proof | undefined,
): Promise<ChangeResult> {
  const { added, removed, operation, mode } = entry
  if (proof !== undefined) await writeProofs(vault, await readMetadata(vault.volume), [proof])
  const gone = removed === undefined ? undefined : { keyslot: removed.keyslot, salt: removed.salt }
  await audit(vault, operation, {
    ...(added === undefined ? {} : { added: added.keyslot, purpose: entry.purpose }),
    ...(gone === undefined ? {} : { removed: gone.keyslot }),
  })
  await journalOf(vault).clear()
  const change = added === undefined ? {} : { added: added.keyslot }
  const removedNow = gone === undefined ? [] : [gone]
  const backupProblem = await afterChange(vault, operation, { ...change, removed: removedNow })
  return {
    mode,
    keyslot: added?.keyslot,
    token: added?.token,
    removed: gone,
    proof,
    ...(backupProblem === undefined ? {} : { backupProblem }),
  }
}

/** Runs the hook that backs the header up; its failure is reported, not thrown. */
export async function afterChange(
  vault: Vault,
  operation: string,
  change: Partial<Pick<CompletedChange, 'added' | 'removed'>> = {},
): Promise<string | undefined> {
  const { volume, uuid, deps } = vault
  try {
    await deps.afterChange?.({ removed: [], ...change, volume, uuid, operation })
    return undefined
  } catch (error) {
    return messageOf(error)
  }
}

/** Salts of all keyslots, by number. */
export function saltsOf(metadata: Metadata): Record<string, string> {
  return Object.fromEntries([...metadata.keyslots.values()].map(({ id, salt }) => [`${id}`, salt]))
}

interface Work {
  vault: Vault
  means: Means
  entry: JournalEntry
  proof: Proof | undefined
}

async function takeStep(work: Work, step: Step): Promise<void> {
  const { volume } = work.vault
  switch (step.do) {
    case 'add_keyslot':
      return await addKeyslot(work, step.keyslot)
    case 'write_token':
      return await importToken(volume, step.token, step.json, step.replace)
    case 'prove':
      work.proof = await proveWay(work, step.keyslot, step.token)
      return
    case 'commit':
      work.entry.committed = true
      return await journalOf(work.vault).write(work.entry)
    case 'remove_token':
      return await removeToken(volume, step.token)
    case 'kill_keyslot':
      // What remains has been proven, and cryptsetup's own check would try Argon2id slots first.
      return await killSlot(volume, step.keyslot)
    default:
      return step satisfies never
  }
}

async function addKeyslot(work: Work, keyslot: number): Promise<void> {
  const { vault, means, entry } = work
  const { existing, fresh } = means
  if (existing === undefined || fresh === undefined) {
    throw vaultFault(
      'vault.no_way_in',
      `a way into ${vault.volume.device} is needed to add another`,
    )
  }
  const derivation = means.derivation ?? { kind: 'full_entropy' }
  const { passphrase } = existing
  await addKey(vault.volume, keyslot, passphrase, fresh, derivation, existing.keyslot)
  const salt = (await readMetadata(vault.volume)).keyslots.get(keyslot)?.salt
  if (entry.added !== undefined && salt !== undefined) entry.added.salt = salt
  await journalOf(vault).write(entry)
  // In place, the next step takes the old token away: the slot itself must be good before that.
  await requireOpens(vault, fresh, keyslot)
}

async function requireOpens(vault: Vault, passphrase: Secret, keyslot: number): Promise<void> {
  if (await testPassphrase(vault.volume, passphrase, keyslot)) return
  throw vaultFault('vault.binding_unproven', `the new keyslot ${keyslot} does not open`, {
    hint: 'the header was put back; check the device and its cables: dmesg | tail',
  })
}

/**
 * Reads the new token back, opens it through its live pins and tries the keyslot with the result.
 * The pins have each been rehearsed on this very sealed form before the header was touched.
 */
async function proveWay({ vault, means }: Work, keyslot: number, id: number): Promise<Proof> {
  const metadata = await readMetadata(vault.volume)
  const slot = metadata.keyslots.get(keyslot)
  const raw = metadata.tokens.get(id)
  const token = raw === undefined ? undefined : readToken(raw)
  if (slot === undefined || token === undefined) throw unproven(keyslot, 'it is not in the header')
  const found = { keyslot, salt: slot.salt, at: timestamp(vault) }
  if (token.kind === 'owner' && means.fresh !== undefined) {
    await requireOpens(vault, means.fresh, keyslot)
    return { ...found, state: 'proven' }
  }
  const { rehearsal } = means
  if (token.kind !== 'binding' || rehearsal === undefined) {
    throw unproven(keyslot, 'its token does not read back')
  }
  const shown = rehearsalJson(rehearsal)
  // Sealing has accepted that only people who are not here could prove it.
  if (rehearsal.state === 'not_tried') return { ...found, state: 'not_tried', rehearsal: shown }
  using passphrase = await open(vault.pins, token.jwe)
  await requireOpens(vault, passphrase, keyslot)
  return { ...found, state: 'proven', rehearsal: shown }
}

/** A rehearsal as plain JSON, faults included. */
export function rehearsalJson(rehearsal: Rehearsal): Record<string, unknown> {
  const text = JSON.stringify(rehearsal)
  return JSON.parse(text) as Record<string, unknown> // what was just written
}

function unproven(keyslot: number, reason: string): Error {
  return vaultFault(
    'vault.binding_unproven',
    `the new way in by keyslot ${keyslot} has not been proven: ${reason}`,
    {
      hint: 'nothing was changed; bring the missing servers or holders back, or change the policy',
    },
  )
}

function unfinished(vault: Vault, cause: unknown): Error {
  const reason = isFault(cause) ? cause.message : messageOf(cause)
  return vaultFault(
    'vault.unfinished_change',
    `the new way into ${vault.volume.device} is in place, the old one could not be removed: ${reason}`,
    { hint: 'run any holdfast vault command on it again to finish', cause },
  )
}

/** Reads the header and says what is in it. */
export async function readInventory(vault: Vault): Promise<Inventory> {
  return takeInventory(await readMetadata(vault.volume), vault.pins)
}
