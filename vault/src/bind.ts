import { isFault, type Secret } from '@holdfast/base'
import type { Policy } from '@holdfast/seal'
import { type Access, applyPlan, readInventory } from './apply.ts'
import type { KeyDerivation, VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { policyText } from './inventory.ts'
import { planChange } from './plan.ts'
import {
  type AccessOptions,
  type BindOptions,
  type BindResult,
  type BoundSlot,
  bind,
  boundSlot,
  changing,
  existingAccess,
  proveSlot,
  replaceBinding,
} from './rekey.ts'
import type { Vault, VaultDeps } from './state.ts'
import { type Mark, ownerToken } from './token.ts'

export type { AccessOptions, BindOptions, BindResult }

// The clevis commands bind, regen and edit, and their counterparts for recovery and owner slots.

/** Adds a way in: a new keyslot, its passphrase sealed under the policy. */
export async function bindVault(
  deps: VaultDeps,
  volume: VolumeRef,
  policy: Policy,
  options: BindOptions = {},
): Promise<BindResult> {
  return await changing(deps, volume, async (vault) => {
    const inventory = await readInventory(vault)
    return await bind(vault, inventory, policy, options)
  })
}

/** Adds a passphrase of a person's choice. Its derivation is Argon2id unless said otherwise. */
export async function addOwnerPassphrase(
  deps: VaultDeps,
  volume: VolumeRef,
  added: Secret,
  options: AccessOptions & { keyslot?: number; label?: string; derivation?: KeyDerivation } = {},
): Promise<BindResult> {
  return await changing(deps, volume, async (vault) => {
    const inventory = await readInventory(vault)
    using existing = await existingAccess(vault, inventory, options)
    const { label, keyslot, derivation = { kind: 'argon2id' } } = options
    const mark: Mark = {
      v: 1,
      purpose: 'owner',
      generation: 1,
      ...(label === undefined ? {} : { label }),
    }
    const add = { token: ownerToken(0, mark), ...(keyslot === undefined ? {} : { keyslot }) }
    const means = {
      operation: 'bind',
      purpose: 'owner',
      existing,
      fresh: added,
      derivation,
    } as const
    const result = await applyPlan(vault, inventory, planChange(inventory, { add }), means)
    return { ...result, uuid: vault.uuid, missing: [] }
  })
}

/**
 * Replaces a binding's passphrase: same policy, new secret, the old passphrase is dead after it.
 * @throws Fault vault.token_untrusted when the binding does not open: then only an operator can say
 *   what its policy is
 */
export async function regenVault(
  deps: VaultDeps,
  volume: VolumeRef,
  keyslot: number,
  options: BindOptions = {},
): Promise<BindResult> {
  return await changing(deps, volume, async (vault) => {
    const inventory = await readInventory(vault)
    const slot = boundSlot(inventory, keyslot)
    using proven = await proveSlot(vault, slot, options)
    const replacement = { policy: slot.policy, operation: 'regen', proven }
    return await replaceBinding(vault, inventory, slot, replacement, options)
  })
}

export interface EditOptions extends BindOptions {
  /** Do it even when the policy stays the same. */
  force?: boolean
}

/** Gives a binding another policy, and with it another passphrase. */
export async function editVault(
  deps: VaultDeps,
  volume: VolumeRef,
  keyslot: number,
  policy: Policy,
  options: EditOptions = {},
): Promise<BindResult> {
  return await changing(deps, volume, async (vault) => {
    const inventory = await readInventory(vault)
    const slot = boundSlot(inventory, keyslot)
    if (policyText(slot.policy) === policyText(policy) && options.force !== true) {
      throw vaultFault('vault.unchanged', `keyslot ${keyslot} has this policy already`, {
        hint: 'use holdfast vault regen to renew its passphrase',
      })
    }
    using proven = await provenIfItOpens(vault, slot, options)
    return await replaceBinding(
      vault,
      inventory,
      slot,
      { policy, operation: 'edit', proven },
      options,
    )
  })
}

/** The old keys vouch for new ones where the binding opens; otherwise the new policy must pin them. */
async function provenIfItOpens(
  vault: Vault,
  slot: BoundSlot,
  options: EditOptions,
): Promise<Access | undefined> {
  if (slot.purpose !== 'automatic') return undefined // people are not asked twice
  try {
    return await proveSlot(vault, slot, options)
  } catch (error) {
    options.signal?.throwIfAborted()
    if (isFault(error)) return undefined
    throw error
  }
}
