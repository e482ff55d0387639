import type { Secret } from '@holdfast/base'
import { readInventory } from './apply.ts'
import type { VolumeRef } from './cryptsetup.ts'
import { boundSlot } from './rekey.ts'
import { audit, markForRegeneration, openVault, type VaultDeps } from './state.ts'
import { openBinding, type WayOptions } from './ways.ts'

/**
 * Reveals the passphrase of one binding, for a technician who will have no network. The slot is
 * marked for regeneration and the audit line is written before the passphrase leaves.
 * @returns the passphrase, owned by the caller
 * @throws Fault vault.slot_absent, vault.slot_unbound, vault.binding_stale, those of opening
 */
export async function passVault(
  deps: VaultDeps,
  volume: VolumeRef,
  keyslot: number,
  options: Pick<WayOptions, 'timeout' | 'signal' | 'onEvent'> = {},
): Promise<Secret> {
  const vault = await openVault(deps, volume)
  const slot = boundSlot(await readInventory(vault), keyslot)
  const { passphrase } = await openBinding(vault, slot, options)
  try {
    await markForRegeneration(vault, slot, 'its passphrase was shown')
    await audit(vault, 'pass', { keyslot })
    return passphrase
  } catch (error) {
    passphrase[Symbol.dispose]()
    throw error
  }
}
