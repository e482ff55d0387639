import { type Fault, isFault } from '@holdfast/base'
import { knownKeys, leavesOf, type Policy, parsePolicy } from '@holdfast/seal'
import { adoptTokens } from './adopt.ts'
import { readInventory } from './apply.ts'
import type { VolumeRef } from './cryptsetup.ts'
import type { Inventory } from './inventory.ts'
import { reachablePart } from './reachable.ts'
import {
  type AccessOptions,
  type BoundSlot,
  boundSlot,
  changing,
  provenWanted,
  proveSlot,
  replaceBinding,
} from './rekey.ts'
import { resumeVault, type Settled } from './resume.ts'
import { hasRecord, isSame, readRecord, type Vault, type VaultDeps, writeRecord } from './state.ts'

export { resumeVault, type Settled }

/** What was put right, and what could not be yet. */
export interface Maintained {
  settled: Settled
  /** Keyslots whose token a clevis command had rewritten. */
  readopted: readonly number[]
  /** Slots whose passphrase had been shown and is now replaced: old and new keyslot. */
  regenerated: readonly { from: number; to: number | undefined }[]
  /** Slots bound to more of their policy than before. */
  completed: readonly { from: number; to: number | undefined; missing: readonly string[] }[]
  waiting: readonly { keyslot: number; why: 'regenerate' | 'complete'; fault?: Fault }[]
}

/**
 * Does what was left for later: settles a crashed change, regenerates slots whose passphrase was
 * shown, completes bindings that were made with a part of their key servers. What cannot be done
 * yet stays noted and is returned as waiting. Safe to run at any time and any number of times.
 */
export async function maintainVault(
  deps: VaultDeps,
  volume: VolumeRef,
  options: Omit<AccessOptions, 'passphrase'> = {},
): Promise<Maintained> {
  const settled = await resumeVault(deps, volume)
  return await changing(deps, volume, async (vault) => {
    const readopted = (await hasRecord(vault)) ? await adoptTokens(vault) : []
    const regenerated: { from: number; to: number | undefined }[] = []
    const completed: { from: number; to: number | undefined; missing: readonly string[] }[] = []
    const waiting: Maintained['waiting'][number][] = []
    for (const keyslot of await toRegenerate(vault)) {
      const done = await attempt(vault, keyslot, 'regenerate', options, waiting)
      if (done !== undefined) regenerated.push({ from: keyslot, to: done.keyslot })
    }
    for (const keyslot of toComplete(await readInventory(vault))) {
      const done = await attempt(vault, keyslot, 'complete', options, waiting)
      if (done !== undefined) {
        completed.push({ from: keyslot, to: done.keyslot, missing: done.missing })
      }
    }
    return { settled, readopted, regenerated, completed, waiting }
  })
}

/** Marked keyslots that still exist; marks of slots that are gone are forgotten. */
async function toRegenerate(vault: Vault): Promise<number[]> {
  const record = await readRecord(vault)
  const { slots } = await readInventory(vault)
  const living = record.regenerate.filter((mark) => slots.some((slot) => isSame(slot, mark)))
  if (living.length !== record.regenerate.length) {
    await writeRecord(vault, { ...record, regenerate: living })
  }
  return living.map(({ keyslot }) => keyslot)
}

function toComplete({ slots }: Inventory): number[] {
  return slots.filter(({ mark }) => mark?.wanted !== undefined).map(({ keyslot }) => keyslot)
}

async function attempt(
  vault: Vault,
  keyslot: number,
  why: 'regenerate' | 'complete',
  options: AccessOptions,
  waiting: Maintained['waiting'][number][],
) {
  try {
    const inventory = await readInventory(vault)
    const slot = boundSlot(inventory, keyslot)
    using proven = await proveSlot(vault, slot, options)
    const wanted = provenWanted(slot, proven)
    const policy = wanted === undefined ? slot.policy : parsePolicy(wanted.pin, wanted.config)
    const chosen = { ...options, reachable: wanted !== undefined }
    if (why === 'complete' && !(await hasGrown(vault, slot, policy))) {
      waiting.push({ keyslot, why })
      return undefined
    }
    const replacement = { policy, operation: why, proven }
    return await replaceBinding(vault, inventory, slot, replacement, chosen)
  } catch (error) {
    options.signal?.throwIfAborted()
    if (!isFault(error)) throw error
    waiting.push({ keyslot, why, fault: error })
    return undefined
  }
}

/** True when more of the wanted policy can be bound now than is bound. */
async function hasGrown(vault: Vault, slot: BoundSlot, wanted: Policy): Promise<boolean> {
  const part = await reachablePart(vault.pins, wanted, { known: knownKeys(slot.jwe) })
  return leavesOf(part.policy).length > leavesOf(slot.policy).length
}
