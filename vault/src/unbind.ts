import type { Secret } from '@holdfast/base'
import { applyPlan, type ChangeResult, readInventory } from './apply.ts'
import { testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import type { Inventory, Slot } from './inventory.ts'
import { planChange, remainingWays } from './plan.ts'
import { changing } from './rekey.ts'
import { isProven } from './standing.ts'
import { readProofs, type Vault, type VaultDeps } from './state.ts'
import type { Purpose } from './token.ts'
import { openAnyWay } from './ways.ts'

export interface UnbindOptions {
  /** A passphrase that opens another keyslot: the proof that something remains. */
  passphrase?: Secret
  /** Remove the last automatic, or the last recovery, way in. Never the last of all. */
  force?: boolean
  signal?: AbortSignal
  timeout?: number
}

/**
 * Removes one way in and its keyslot. Something that remains must be proven: by the given
 * passphrase, by a recorded proof, or by opening another binding now.
 * @throws Fault vault.last_way_in, vault.slot_foreign, vault.slot_absent, vault.binding_unproven
 */
export async function unbindVault(
  deps: VaultDeps,
  volume: VolumeRef,
  keyslot: number,
  options: UnbindOptions = {},
): Promise<ChangeResult> {
  return await changing(deps, volume, async (vault) => {
    const inventory = await readInventory(vault)
    const { force = false } = options
    const plan = planChange(inventory, { remove: keyslot, force })
    const slot = inventory.slots.find((candidate) => candidate.keyslot === keyslot)
    if (slot === undefined) throw new Error('a planned slot is in the inventory')
    await proveRemaining(vault, inventory, slot, options)
    const means = { operation: 'unbind', purpose: purposeOf(slot) }
    return await applyPlan(vault, inventory, plan, means)
  })
}

async function proveRemaining(
  vault: Vault,
  inventory: Inventory,
  removed: Slot,
  options: UnbindOptions,
): Promise<void> {
  if (options.passphrase !== undefined) {
    return await requireOther(vault, inventory, removed, options.passphrase)
  }
  const { automatic, recovery } = remainingWays(inventory, removed)
  const proofs = await readProofs(vault, inventory.metadata)
  if ([...automatic, ...recovery].some((slot) => isProven(slot, proofs))) return
  const rest = { ...inventory, slots: inventory.slots.filter((slot) => slot !== removed) }
  const { signal, timeout } = options
  try {
    const way = await openAnyWay(vault, rest, {
      ...(signal === undefined ? {} : { signal }),
      ...(timeout === undefined ? {} : { timeout }),
    })
    way.passphrase[Symbol.dispose]()
  } catch (cause) {
    signal?.throwIfAborted()
    throw vaultFault(
      'vault.binding_unproven',
      `nothing that would remain without keyslot ${removed.keyslot} has been proven to open`,
      { cause, hint: 'give a passphrase that opens the volume, or run holdfast vault rehearse' },
    )
  }
}

/** The passphrase must open a keyslot other than the one that goes. */
async function requireOther(
  vault: Vault,
  { slots }: Inventory,
  removed: Slot,
  passphrase: Secret,
): Promise<void> {
  for (const { keyslot } of slots) {
    if (keyslot === removed.keyslot) continue
    if (await testPassphrase(vault.volume, passphrase, keyslot)) return
  }
  throw vaultFault(
    'vault.passphrase_wrong',
    `this passphrase opens no keyslot of ${vault.volume.device} but perhaps ${removed.keyslot}`,
    { hint: 'give a passphrase that will still open the volume afterwards' },
  )
}

function purposeOf(slot: Slot): Purpose {
  return slot.purpose === 'unknown' ? 'automatic' : slot.purpose
}
