import type { Policy } from '@holdfast/seal'
import { type Access, afterChange, readInventory } from './apply.ts'
import { findKeyslot, importToken, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { putBack, saveHeader } from './header-undo.ts'
import type { Inventory } from './inventory.ts'
import { freeToken } from './metadata.ts'
import { type AccessOptions, type BindResult, bind, changing, existingAccess } from './rekey.ts'
import { type Standing, standingOf } from './standing.ts'
import {
  audit,
  readProofs,
  readRecord,
  timestamp,
  type Vault,
  type VaultDeps,
  writeProofs,
  writeRecord,
} from './state.ts'
import { clevisType, holdfastType, type Mark, ownerToken } from './token.ts'

export interface AdoptOptions extends AccessOptions {
  /** Adds recovery by these holders. */
  recovery?: Policy
  label?: string
  /** Accept recovery that the holders, who are not here, have not proven. */
  unproven?: boolean
}

export interface Adopted {
  uuid: string
  /** Keyslots whose clevis token now records what it is. */
  marked: readonly number[]
  /** The keyslot that the given passphrase opens, now recorded as the owner's. */
  owner: number | undefined
  recovery: BindResult | undefined
  standing: Standing
}

/**
 * Takes an existing volume into care. Needs a way in that works; records in tokens what the slots
 * are; adds recovery if asked; touches no keyslot otherwise.
 */
export async function adoptVault(
  deps: VaultDeps,
  volume: VolumeRef,
  options: AdoptOptions = {},
): Promise<Adopted> {
  return await changing(deps, volume, async (vault) => {
    using existing = await existingAccess(vault, await readInventory(vault), options)
    const owner = await adoptOwner(vault, existing)
    const marked = await adoptTokens(vault)
    const recovery =
      options.recovery === undefined
        ? undefined
        : await bind(vault, await readInventory(vault), options.recovery, {
            ...options,
            purpose: 'recovery',
            passphrase: existing.passphrase,
          })
    await writeRecord(vault, { ...(await readRecord(vault)), state: 'ready' })
    await audit(vault, 'adopt', { marked, ...(owner === undefined ? {} : { owner }) })
    if (recovery === undefined) await afterChange(vault, 'adopt')
    const inventory = await readInventory(vault)
    const proofs = await readProofs(vault, inventory.metadata)
    return { uuid: vault.uuid, marked, owner, recovery, standing: standingOf(inventory, proofs) }
  })
}

/**
 * Gives clevis tokens, and those that a clevis regen rewrote, Holdfast's member, each in one header
 * write. Skips what does not fit.
 * @returns the keyslots concerned
 */
export async function adoptTokens(vault: Vault): Promise<number[]> {
  const inventory = await readInventory(vault)
  return await allOrNothing(vault, inventory, async () => {
    const marked: number[] = []
    let room = inventory.space.json
    for (const { keyslot, owner, token } of inventory.slots) {
      if (owner !== 'clevis' || token === undefined) continue
      const json = inventory.metadata.tokens.get(token)?.json
      const mark: Mark = { v: 1, purpose: 'automatic', generation: 1 }
      const growth = JSON.stringify({ [holdfastType]: mark }).length
      if (json?.type !== clevisType || room < growth) continue
      room -= growth
      await importToken(vault.volume, token, { ...json, [holdfastType]: mark }, true)
      marked.push(keyslot)
    }
    return marked
  })
}

/** Records the passphrase's keyslot as the owner's, where nothing describes it yet. */
async function adoptOwner(vault: Vault, access: Access): Promise<number | undefined> {
  const keyslot = access.keyslot ?? (await findKeyslot(vault.volume, access.passphrase))
  if (keyslot === undefined) {
    throw vaultFault(
      'vault.passphrase_wrong',
      `no keyslot of ${vault.volume.device} opens with this passphrase`,
    )
  }
  const inventory = await readInventory(vault)
  const slot = inventory.slots.find((candidate) => candidate.keyslot === keyslot)
  const { metadata } = inventory
  const claimed = [...metadata.tokens.values()].some((token) => token.keyslots.includes(keyslot))
  const token = freeToken(metadata)
  const fits = inventory.space.json > ownerRoom
  if (slot?.purpose === 'unknown' && !claimed && token !== undefined && fits) {
    const json = ownerToken(keyslot, { v: 1, purpose: 'owner', generation: 1 })
    await allOrNothing(vault, inventory, () => importToken(vault.volume, token, json))
  }
  const salt = metadata.keyslots.get(keyslot)?.salt ?? ''
  const proof = { keyslot, salt, at: timestamp(vault), state: 'proven' } as const
  await writeProofs(vault, metadata, [proof])
  return slot?.purpose === 'unknown' || slot?.purpose === 'owner' ? keyslot : undefined
}

/** More than an owner's token takes, in bytes. */
const ownerRoom = 200

async function allOrNothing<T>(
  vault: Vault,
  inventory: Inventory,
  work: () => Promise<T>,
): Promise<T> {
  using saved = await saveHeader(vault.volume, inventory.metadata)
  try {
    return await work()
  } catch (error) {
    await putBack(vault.volume, inventory.metadata, saved)
    throw error
  }
}
