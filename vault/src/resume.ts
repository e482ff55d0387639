import { canonicalJson, type JsonObject } from '@holdfast/base'
import { concludeChange } from './apply.ts'
import type { VolumeRef } from './cryptsetup.ts'
import { importToken, killSlot, readMetadata, removeToken } from './cryptsetup.ts'
import { type JournalEntry, journalOf } from './journal.ts'
import type { Metadata } from './metadata.ts'
import { audit, lockVault, openVault, type Vault, type VaultDeps } from './state.ts'

// Settles a change that a crash interrupted. Needs no secret and no network: before the proof the
// change is undone, after it the change is finished. A keyslot is only ever destroyed here when it is
// certain which one it is: by its salt, or because its token is the journalled one, or because it
// appeared in a place that was free, belongs to no token and has a key derivation that only
// full-entropy passphrases are given.

export type Settled = { outcome: 'nothing' | 'completed' | 'undone'; operation?: string }

/** Finishes or undoes the change that was under way on this volume, if any. */
export async function resumeVault(deps: VaultDeps, volume: VolumeRef): Promise<Settled> {
  const vault = await openVault(deps, volume)
  await using _held = await lockVault(vault)
  return await settle(vault)
}

/** The same, for a caller who holds the volume's lock. */
export async function settle(vault: Vault): Promise<Settled> {
  const entry = await journalOf(vault).read()
  if (entry === undefined) return { outcome: 'nothing' }
  const metadata = await readMetadata(vault.volume)
  const { operation } = entry
  if (entry.committed && isInPlace(entry, metadata)) {
    await finish(vault, entry, metadata)
    await concludeChange(vault, entry, undefined)
    return { outcome: 'completed', operation }
  }
  const kept = await undo(vault, entry, metadata)
  if (kept) {
    await concludeChange(vault, entry, undefined)
    return { outcome: 'completed', operation }
  }
  await audit(vault, `${operation}.undone`, {})
  await journalOf(vault).clear()
  return { outcome: 'undone', operation }
}

/** True unless what was added has gone since, as after a header restore. */
function isInPlace({ added }: JournalEntry, metadata: Metadata): boolean {
  if (added === undefined) return true
  return metadata.keyslots.get(added.keyslot)?.salt === added.salt
}

async function finish(vault: Vault, entry: JournalEntry, metadata: Metadata): Promise<void> {
  const { removed } = entry
  if (removed === undefined) return
  const { token, json, keyslot, salt } = removed
  if (entry.mode === 'beside' && token !== undefined && holds(metadata, token, json)) {
    await removeToken(vault.volume, token)
  }
  if (metadata.keyslots.get(keyslot)?.salt === salt) await killSlot(vault.volume, keyslot)
}

/** Takes back what was added. Says true when it was completed instead. */
async function undo(vault: Vault, entry: JournalEntry, metadata: Metadata): Promise<boolean> {
  const { added, removed } = entry
  if (added === undefined || entry.committed) return false
  const slot = metadata.keyslots.get(added.keyslot)
  const written = holds(metadata, added.token, added.json)
  const isNew = slot !== undefined && entry.before[`${added.keyslot}`] !== slot.salt
  if (entry.purpose === 'owner' && isNew && !written) {
    // A person chose this passphrase and it opens: recording it is all that was left to do.
    await importToken(vault.volume, added.token, added.json)
    return true
  }
  if (entry.purpose === 'owner' && isNew) return true
  if (written) await takeTokenBack(vault, entry.mode, added.token, removed?.json)
  if (isNew && (written || slot.salt === added.salt || isOurs(metadata, slot.id))) {
    await killSlot(vault.volume, added.keyslot)
  }
  return false
}

async function takeTokenBack(
  vault: Vault,
  mode: JournalEntry['mode'],
  token: number,
  old: JsonObject | undefined,
): Promise<void> {
  if (mode === 'in_place' && old !== undefined) {
    await importToken(vault.volume, token, old, true)
  } else {
    await removeToken(vault.volume, token)
  }
}

function holds(metadata: Metadata, id: number, json: JsonObject | undefined): boolean {
  const found = metadata.tokens.get(id)?.json
  return found !== undefined && json !== undefined && canonicalJson(found) === canonicalJson(json)
}

function isOurs(metadata: Metadata, keyslot: number): boolean {
  const claimed = [...metadata.tokens.values()].some((token) => token.keyslots.includes(keyslot))
  return !claimed && metadata.keyslots.get(keyslot)?.derivation === 'pbkdf2'
}
