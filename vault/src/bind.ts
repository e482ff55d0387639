import { Secret } from '@holdfast/base'
import { knownKeys, lineageOf, type Policy, prove, seal } from '@holdfast/seal'
import { applyPlan, type ChangeResult, readInventory } from './apply.ts'
import type { KeyDerivation, VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { type Inventory, policyText, type Slot } from './inventory.ts'
import { planChange } from './plan.ts'
import { reachablePart } from './reachable.ts'
import { settle } from './resume.ts'
import { lockVault, openVault, type Vault, type VaultDeps } from './state.ts'
import { bindingToken, type Mark, ownerToken } from './token.ts'
import { openAnyWay, type WayOptions } from './ways.ts'

// The clevis commands bind, regen and edit, and their counterparts for recovery and owner slots. All
// of them are the same transaction: make a new passphrase, seal it, prove the sealed form, and only
// then let apply.ts touch the header.

export interface AccessOptions {
  /** A passphrase that opens the volume now; without one a binding is opened. */
  passphrase?: Secret
  signal?: AbortSignal
  /** Milliseconds for each pin's attempt. Default 10 000. */
  timeout?: number
}

export interface BindOptions extends AccessOptions {
  purpose?: 'automatic' | 'recovery'
  /** Number for the new keyslot; the lowest free one otherwise. */
  keyslot?: number
  token?: number
  label?: string
  /** Accept a binding that only people who are not here could prove. Default false. */
  unproven?: boolean
  /**
   * Bind the key servers that can be reached, if they meet the threshold, and remember the whole
   * policy so that `completeVault` binds the rest later. Default false.
   */
  reachable?: boolean
}

export interface BindResult extends ChangeResult {
  uuid: string
  /** Labels of pins that could not be reached and are not bound yet. */
  missing: readonly string[]
}

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

/** The same for a caller who holds the lock. */
export async function bind(
  vault: Vault,
  inventory: Inventory,
  policy: Policy,
  options: BindOptions,
): Promise<BindResult> {
  const { purpose = 'automatic', label } = options
  using existing = await existingPassphrase(vault, inventory, options)
  using fresh = newPassphrase()
  const { sealed, wanted, missing } = await sealFresh(vault, policy, fresh, options)
  const mark: Mark = {
    v: 1,
    purpose,
    generation: 1,
    ...(wanted === undefined ? {} : { wanted }),
    ...(label === undefined ? {} : { label }),
  }
  const plan = planChange(inventory, {
    add: {
      token: bindingToken(0, sealed, mark),
      ...(options.keyslot === undefined ? {} : { keyslot: options.keyslot }),
      ...(options.token === undefined ? {} : { tokenId: options.token }),
    },
  })
  const means = { operation: 'bind', purpose, existing, fresh, ...unprovenOf(options) }
  const result = await applyPlan(vault, inventory, plan, means)
  return { ...result, uuid: vault.uuid, missing }
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
    using existing = await existingPassphrase(vault, inventory, options)
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

/** Replaces a binding's passphrase: same policy, new secret, the old passphrase is dead after it. */
export async function regenVault(
  deps: VaultDeps,
  volume: VolumeRef,
  keyslot: number,
  options: BindOptions = {},
): Promise<BindResult> {
  return await changing(deps, volume, async (vault) => {
    const inventory = await readInventory(vault)
    const slot = boundSlot(inventory, keyslot)
    return await replaceBinding(vault, inventory, slot, slot.policy, 'regen', options)
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
    return await replaceBinding(vault, inventory, slot, policy, 'edit', options)
  })
}

/** Add the new one, prove it, remove the old one; for a caller who holds the lock. */
export async function replaceBinding(
  vault: Vault,
  inventory: Inventory,
  slot: BoundSlot,
  policy: Policy,
  operation: string,
  options: BindOptions,
): Promise<BindResult> {
  using existing = await existingPassphrase(vault, inventory, options, slot)
  using fresh = newPassphrase()
  const { sealed, wanted, missing } = await sealFresh(vault, policy, fresh, options, slot.jwe)
  const label = options.label ?? slot.mark?.label
  const mark: Mark = {
    v: 1,
    purpose: slot.purpose,
    generation: (slot.mark?.generation ?? 0) + 1,
    ...(wanted === undefined ? {} : { wanted }),
    ...(label === undefined ? {} : { label }),
  }
  const add = {
    token: bindingToken(0, sealed, mark),
    ...(options.keyslot === undefined ? {} : { keyslot: options.keyslot }),
    ...(options.token === undefined ? {} : { tokenId: options.token }),
  }
  const plan = planChange(inventory, { add, remove: slot.keyslot })
  const means = { operation, purpose: slot.purpose, existing, fresh, ...unprovenOf(options) }
  const result = await applyPlan(vault, inventory, plan, means)
  return { ...result, uuid: vault.uuid, missing }
}

/** Takes the volume's lock, settles what a crash left, and then runs the work. */
export async function changing<T>(
  deps: VaultDeps,
  volume: VolumeRef,
  work: (vault: Vault) => Promise<T>,
): Promise<T> {
  const vault = await openVault(deps, volume)
  await using _held = await lockVault(vault)
  await settle(vault)
  return await work(vault)
}

export type BoundSlot = Slot & {
  jwe: string
  token: number
  policy: Policy
  purpose: 'automatic' | 'recovery'
}

/** The binding in a keyslot. @throws Fault vault.slot_absent, vault.slot_unbound */
export function boundSlot(inventory: Inventory, keyslot: number): BoundSlot {
  const slot = inventory.slots.find((candidate) => candidate.keyslot === keyslot)
  if (slot === undefined) {
    throw vaultFault('vault.slot_absent', `keyslot ${keyslot} is not in use`, {
      hint: 'see which are: holdfast vault list',
    })
  }
  const { jwe, token, policy, purpose } = slot
  const bound = purpose === 'automatic' || purpose === 'recovery'
  if (jwe !== undefined && token !== undefined && policy !== undefined && bound) {
    return { ...slot, jwe, token, policy, purpose }
  }
  throw vaultFault('vault.slot_unbound', `keyslot ${keyslot} has no binding`, {
    hint: slot.problem ?? 'see which have: holdfast vault list',
  })
}

/** 256 random bits in 43 characters that can be typed and pasted. */
export function newPassphrase(): Secret {
  using bytes = Secret.random(32)
  return Secret.copy(bytes.reveal().toString('base64url'))
}

/**
 * Seals a new passphrase and proves the sealed form through its live pins. With `reachable`, only
 * the part of the policy whose servers answer is sealed to.
 */
export async function sealFresh(
  vault: Vault,
  policy: Policy,
  fresh: Secret,
  options: BindOptions,
  previous?: string,
) {
  const { signal } = options
  const known = previous === undefined ? [] : knownKeys(previous)
  const lineage = previous === undefined ? undefined : lineageOf(previous)
  const common = { known, ...(signal === undefined ? {} : { signal }) }
  const part =
    options.reachable === true
      ? await reachablePart(vault.pins, policy, common)
      : { policy, missing: [], wanted: undefined }
  const sealed = await seal(vault.pins, part.policy, fresh, {
    ...common,
    ...(lineage === undefined ? {} : { set: lineage.set, generation: lineage.generation + 1 }),
  })
  await prove(vault.pins, sealed, fresh, {
    ...(signal === undefined ? {} : { signal }),
    ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
    ...unprovenOf(options),
  })
  return { sealed, wanted: part.wanted, missing: part.missing }
}

async function existingPassphrase(
  vault: Vault,
  inventory: Inventory,
  options: AccessOptions,
  preferred?: Slot,
): Promise<Secret> {
  if (options.passphrase !== undefined) return options.passphrase.clone()
  const purposes: WayOptions['purposes'] =
    preferred?.purpose === 'recovery' ? ['automatic', 'recovery'] : ['automatic']
  const way = await openAnyWay(vault, inventory, {
    purposes,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
  })
  return way.passphrase
}

function unprovenOf({ unproven }: BindOptions) {
  return unproven === undefined ? {} : { unproven }
}
