import { Secret } from '@holdfast/base'
import { knownKeys, lineageOf, type Policy, prove, seal } from '@holdfast/seal'
import { applyPlan, type ChangeResult } from './apply.ts'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import type { Inventory, Slot } from './inventory.ts'
import { planChange } from './plan.ts'
import { reachablePart } from './reachable.ts'
import { settle } from './resume.ts'
import { lockVault, openVault, type Vault, type VaultDeps } from './state.ts'
import { bindingToken, type Mark } from './token.ts'
import { openAnyWay, type WayOptions } from './ways.ts'

// The one transaction behind bind, regen and edit: make a new passphrase, seal it, prove the sealed
// form, and only then let apply.ts touch the header.

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

/** Adds a binding, for a caller who holds the lock. */
export async function bind(
  vault: Vault,
  inventory: Inventory,
  policy: Policy,
  options: BindOptions,
): Promise<BindResult> {
  const { purpose = 'automatic' } = options
  using existing = await existingPassphrase(vault, inventory, options)
  using fresh = newPassphrase()
  const form = await sealFresh(vault, policy, fresh, options)
  return await writeBinding(vault, inventory, form, {
    operation: 'bind',
    purpose,
    generation: 1,
    existing,
    fresh,
    options,
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
  const form = await sealFresh(vault, policy, fresh, options, slot.jwe)
  const label = options.label ?? slot.mark?.label
  return await writeBinding(vault, inventory, form, {
    operation,
    purpose: slot.purpose,
    generation: (slot.mark?.generation ?? 0) + 1,
    existing,
    fresh,
    remove: slot.keyslot,
    options: { ...options, ...(label === undefined ? {} : { label }) },
  })
}

/** A freshly sealed and proven passphrase. */
export interface SealedForm {
  sealed: string
  wanted: Mark['wanted']
  missing: readonly string[]
}

/** Puts a sealed form into the header: the part of the transaction that touches the disk. */
export async function writeBinding(
  vault: Vault,
  inventory: Inventory,
  { sealed, wanted, missing }: SealedForm,
  request: {
    operation: string
    purpose: 'automatic' | 'recovery'
    generation: number
    existing: Secret
    fresh: Secret
    remove?: number
    options: BindOptions
  },
): Promise<BindResult> {
  const { operation, purpose, generation, existing, fresh, remove, options } = request
  const { label, keyslot, token } = options
  const mark: Mark = {
    v: 1,
    purpose,
    generation,
    ...(wanted === undefined ? {} : { wanted }),
    ...(label === undefined ? {} : { label }),
  }
  const plan = planChange(inventory, {
    add: {
      token: bindingToken(0, sealed, mark),
      ...(keyslot === undefined ? {} : { keyslot }),
      ...(token === undefined ? {} : { tokenId: token }),
    },
    ...(remove === undefined ? {} : { remove }),
  })
  const means = { operation, purpose, existing, fresh, ...unprovenOf(options) }
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
): Promise<SealedForm> {
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

/** A passphrase that opens the volume: the given one, or from a binding. The caller owns it. */
export async function existingPassphrase(
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
