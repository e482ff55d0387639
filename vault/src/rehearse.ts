import { messageOf, type Secret } from '@holdfast/base'
import { open, type Rehearsal, type RehearseOptions, rehearse } from '@holdfast/seal'
import { readInventory, rehearsalJson } from './apply.ts'
import { testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { bindingsOf, type Inventory, type Slot } from './inventory.ts'
import { type Standing, standingOf } from './standing.ts'
import {
  openVault,
  type Proof,
  readProofs,
  timestamp,
  type Vault,
  type VaultDeps,
  writeProofs,
} from './state.ts'

export interface RehearseVaultOptions extends RehearseOptions {
  /** Proves the owner slot that it opens. */
  passphrase?: Secret
}

/** One way in as it was just tried. */
export interface RehearsedWay {
  keyslot: number
  purpose: Slot['purpose']
  proof: Proof
  /** Per-pin outcome; absent for owner slots. */
  rehearsal?: Rehearsal
  /** Why it failed although its pins opened, as when the keyslot was changed without its token. */
  problem?: string
}

export interface VaultRehearsal {
  uuid: string
  ways: readonly RehearsedWay[]
  standing: Standing
}

/**
 * Proves every way in: each pin on its own, then the opened passphrase at the real keyslot. Reveals
 * nothing, changes no header; the proofs are recorded with their time.
 */
export async function rehearseVault(
  deps: VaultDeps,
  volume: VolumeRef,
  options: RehearseVaultOptions = {},
): Promise<VaultRehearsal> {
  const vault = await openVault(deps, volume)
  const inventory = await readInventory(vault)
  const bound = await Promise.all(
    bindingsOf(inventory, ['automatic', 'recovery']).map((slot) =>
      rehearseBinding(vault, slot, options),
    ),
  )
  const owned = await rehearseOwners(vault, inventory, options.passphrase)
  const ways = [...bound, ...owned].sort((a, b) => a.keyslot - b.keyslot)
  // Keyslots may have come and gone meanwhile.
  const now = await readInventory(vault)
  const fresh = ways.map(({ proof }) => proof)
  await writeProofs(vault, now.metadata, fresh)
  const proofs = await readProofs(vault, now.metadata)
  return { uuid: vault.uuid, ways, standing: standingOf(now, proofs) }
}

async function rehearseBinding(
  vault: Vault,
  slot: Slot & { jwe: string },
  options: RehearseVaultOptions,
): Promise<RehearsedWay> {
  const { keyslot, salt, purpose } = slot
  const { passphrase: _, ...limits } = options
  const rehearsal = await rehearse(vault.pins, slot.jwe, { clock: vault.clock, ...limits })
  const found = { keyslot, purpose, rehearsal }
  const proof = { keyslot, salt, at: timestamp(vault), rehearsal: rehearsalJson(rehearsal) }
  if (rehearsal.state !== 'proven') return { ...found, proof: { ...proof, state: rehearsal.state } }
  const problem = await problemAtKeyslot(vault, slot, options)
  if (problem === undefined) return { ...found, proof: { ...proof, state: 'proven' } }
  return { ...found, problem, proof: { ...proof, state: 'failed' } }
}

async function problemAtKeyslot(
  vault: Vault,
  slot: Slot & { jwe: string },
  { timeout, signal }: RehearseVaultOptions,
): Promise<string | undefined> {
  try {
    using passphrase = await open(vault.pins, slot.jwe, {
      ...(timeout === undefined ? {} : { timeout }),
      ...(signal === undefined ? {} : { signal }),
    })
    if (await testPassphrase(vault.volume, passphrase, slot.keyslot)) return undefined
    return 'the sealed passphrase opens, but not this keyslot'
  } catch (error) {
    signal?.throwIfAborted()
    return messageOf(error)
  }
}

async function rehearseOwners(
  vault: Vault,
  inventory: Inventory,
  passphrase: Secret | undefined,
): Promise<RehearsedWay[]> {
  if (passphrase === undefined) return []
  const ways: RehearsedWay[] = []
  for (const { keyslot, salt, purpose } of inventory.slots) {
    if (purpose !== 'owner' || !(await testPassphrase(vault.volume, passphrase, keyslot))) continue
    const proof = { keyslot, salt, at: timestamp(vault), state: 'proven' } as const
    ways.push({ keyslot, purpose, proof })
  }
  return ways
}
