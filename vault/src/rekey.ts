import { isFault, Secret } from '@holdfast/base'
import { knownKeys, lineageOf, type Policy, prove, type Rehearsal, seal } from '@holdfast/seal'
import { type Access, applyPlan, type ChangeResult } from './apply.ts'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { type Inventory, policyText, type Slot } from './inventory.ts'
import { planChange } from './plan.ts'
import { reachablePart } from './reachable.ts'
import { settle } from './resume.ts'
import { lockVault, openVault, type Vault, type VaultDeps } from './state.ts'
import { bindingToken, type Mark, wantedMac } from './token.ts'
import { openAnyWay, openBinding, type WayOptions } from './ways.ts'

// The one transaction behind bind, regen and edit: make a new passphrase, seal it, prove the sealed
// form, and only then let apply.ts touch the header. A token is plain text on the disk: what it
// says decides nothing before its own sealed passphrase has opened its own keyslot (`proveSlot`).

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
  /** Bind even though a keyslot has this very policy. Default false. */
  again?: boolean
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
  requireNew(inventory, policy, options)
  using existing = await existingAccess(vault, inventory, options)
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

/** A bind that is repeated by mistake would fill the header with the same way in. */
function requireNew(inventory: Inventory, policy: Policy, options: BindOptions): void {
  const { purpose = 'automatic', again = false } = options
  const text = policyText(policy)
  const same = inventory.slots.find(
    (slot) => slot.purpose === purpose && slot.policy && policyText(slot.policy) === text,
  )
  if (same === undefined || again) return
  throw vaultFault(
    'vault.already_bound',
    `keyslot ${same.keyslot} is bound to this policy already`,
    {
      hint: 'renew it instead: holdfast vault regen',
    },
  )
}

/** What a binding is replaced by. */
export interface Replacement {
  policy: Policy
  operation: string
  /** What `proveSlot` gave. Required unless the policy is an operator's own. */
  proven: Access | undefined
}

/** Add the new one, prove it, remove the old one; for a caller who holds the lock. */
export async function replaceBinding(
  vault: Vault,
  inventory: Inventory,
  slot: BoundSlot,
  { policy, operation, proven }: Replacement,
  options: BindOptions,
): Promise<BindResult> {
  using existing =
    proven === undefined
      ? await existingAccess(vault, inventory, options, slot)
      : accessBy(proven.passphrase.clone(), proven.keyslot)
  using fresh = newPassphrase()
  const previous = proven === undefined ? undefined : slot.jwe
  const { purpose } = slot
  const form = await sealFresh(vault, policy, fresh, { ...options, purpose }, previous)
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

/**
 * Opens a binding's own keyslot with its own sealed passphrase: only somebody who had a way in can
 * have written such a token, so its policy and the keys it stores may be believed.
 * @throws Fault vault.token_untrusted when it does not open its keyslot; its own fault when that is
 *   only because something does not answer now and no passphrase was given instead
 */
export async function proveSlot(
  vault: Vault,
  slot: BoundSlot,
  options: AccessOptions,
): Promise<Access> {
  const { signal, timeout } = options
  try {
    const { passphrase, keyslot } = await openBinding(vault, slot, {
      ...(signal === undefined ? {} : { signal }),
      ...(timeout === undefined ? {} : { timeout }),
    })
    return accessBy(passphrase, keyslot)
  } catch (cause) {
    signal?.throwIfAborted()
    if (!isFault(cause)) throw cause
    if (cause.kind === 'unavailable' && options.passphrase === undefined) throw cause
    throw untrusted(slot.keyslot, `its token does not open it: ${cause.message}`)
  }
}

/**
 * The policy that a proven binding still wants.
 * @throws Fault vault.token_untrusted when nobody with a way in has written it
 */
export function provenWanted({ keyslot, mark }: BoundSlot, { passphrase }: Access): Mark['wanted'] {
  const { wanted, mac } = mark ?? {}
  if (wanted === undefined || mac === wantedMac(passphrase, wanted)) return wanted
  throw untrusted(keyslot, 'the policy it wants was not written by anybody with a way in')
}

function untrusted(keyslot: number, reason: string): Error {
  return vaultFault(
    'vault.token_untrusted',
    `keyslot ${keyslot} is not to be believed: ${reason}`,
    {
      hint: 'the disk may have been written to: give the policy yourself, with holdfast vault edit, and look at holdfast vault list',
    },
  )
}

/** A freshly sealed and proven passphrase. */
export interface SealedForm {
  sealed: string
  wanted: Mark['wanted']
  missing: readonly string[]
  rehearsal: Rehearsal
}

/** Puts a sealed form into the header: the part of the transaction that touches the disk. */
export async function writeBinding(
  vault: Vault,
  inventory: Inventory,
  { sealed, wanted, missing, rehearsal }: SealedForm,
  request: {
    operation: string
    purpose: 'automatic' | 'recovery'
    generation: number
    existing: Access
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
    ...(wanted === undefined ? {} : { wanted, mac: wantedMac(fresh, wanted) }),
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
  const { signal } = options
  const stop = signal === undefined ? {} : { signal }
  const means = { operation, purpose, existing, fresh, rehearsal, ...stop }
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
  const { signal, purpose } = options
  const owner = vault.deps.owner ?? vault.uuid
  const use = purpose === 'recovery' ? ({ purpose: 'vault', of: owner } as const) : undefined
  const known = previous === undefined ? [] : knownKeys(previous)
  const lineage = previous === undefined ? undefined : lineageOf(previous)
  const common = { known, ...(signal === undefined ? {} : { signal }) }
  const part =
    options.reachable === true
      ? await reachablePart(vault.pins, policy, common)
      : { policy, missing: [], wanted: undefined }
  const sealed = await seal(vault.pins, part.policy, fresh, {
    ...common,
    ...(use === undefined ? {} : { use }),
    ...(lineage === undefined ? {} : { set: lineage.set, generation: lineage.generation + 1 }),
  })
  const rehearsal = await prove(vault.pins, sealed, fresh, {
    ...(signal === undefined ? {} : { signal }),
    ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
    ...unprovenOf(options),
  })
  return { sealed, wanted: part.wanted, missing: part.missing, rehearsal }
}

/** A way to open the volume: the given passphrase, or one from a binding. The caller owns it. */
export async function existingAccess(
  vault: Vault,
  inventory: Inventory,
  options: AccessOptions,
  preferred?: Slot,
): Promise<Access> {
  if (options.passphrase !== undefined) return accessBy(options.passphrase.clone())
  const purposes: WayOptions['purposes'] =
    preferred?.purpose === 'recovery' ? ['automatic', 'recovery'] : ['automatic']
  const way = await openAnyWay(vault, inventory, {
    purposes,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.timeout === undefined ? {} : { timeout: options.timeout }),
  })
  return accessBy(way.passphrase, way.keyslot)
}

/** Access by a passphrase, which is wiped with it. */
export function accessBy(passphrase: Secret, keyslot?: number): Access {
  return { passphrase, keyslot, [Symbol.dispose]: () => passphrase[Symbol.dispose]() }
}

function unprovenOf({ unproven }: BindOptions) {
  return unproven === undefined ? {} : { unproven }
}
