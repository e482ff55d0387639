import type { KeyObject } from 'node:crypto'
import type { Secret } from '@holdfast/base'
import {
  makeRecoveryRequest,
  parseRecoveryRequest,
  readRecoveryAnswer,
  requestDigest,
} from '@holdfast/seal'
import { readInventory } from './apply.ts'
import { testPassphrase, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { bindingsOf, type Inventory } from './inventory.ts'
import { boundSlot } from './rekey.ts'
import { audit, markForRegeneration, openVault, type Vault, type VaultDeps } from './state.ts'
import { mapOrTest, type Unlocked } from './unlock.ts'

// The technician's way in: a site without network, a colleague beside the key servers. What leaves the
// machine is the sealed secret, which the header shows to anybody anyway, and a public key.

export interface ExportedRequest {
  uuid: string
  keyslot: number
  /** One line of JSON to send, as a file or a QR code. */
  request: string
  /** What both people can read to each other. */
  digest: string
}

/**
 * Exports a binding's sealed secret for a colleague to open. Works without network, and for
 * bindings that clevis made.
 * @param technician the public key that the answer is to be encrypted to
 * @throws Fault vault.slot_absent, vault.slot_unbound, seal.holder_key_weak
 */
export async function exportRequest(
  deps: VaultDeps,
  volume: VolumeRef,
  technician: KeyObject,
  options: { keyslot?: number } = {},
): Promise<ExportedRequest> {
  const vault = await openVault(deps, volume)
  const inventory = await readInventory(vault)
  const keyslot = options.keyslot ?? bindingsOf(inventory)[0]?.keyslot
  if (keyslot === undefined) {
    throw vaultFault('vault.slot_unbound', `${volume.device} has no automatic binding to export`)
  }
  const slot = boundSlot(inventory, keyslot)
  const request = makeRecoveryRequest(slot.jwe, technician)
  const digest = requestDigest(parseRecoveryRequest(request))
  await audit(vault, 'export-request', { keyslot, request: digest })
  return { uuid: vault.uuid, keyslot, request, digest }
}

export interface ApplyAnswerOptions {
  /** The request that was sent, and the technician's private key. */
  request: string
  technician: KeyObject
  name?: string
  testOnly?: boolean
}

/**
 * Reads the colleague's answer, proves the passphrase at the real keyslot, marks the slot for
 * regeneration, and opens the volume.
 * @throws Fault seal.answer_malformed, seal.answer_foreign, vault.answer_wrong
 */
export async function applyAnswer(
  deps: VaultDeps,
  volume: VolumeRef,
  answer: string,
  options: ApplyAnswerOptions,
): Promise<Unlocked> {
  const vault = await openVault(deps, volume)
  const request = parseRecoveryRequest(options.request)
  using passphrase = await readRecoveryAnswer(answer, request, options.technician)
  const slot = slotOf(await readInventory(vault), request.sealed)
  if (slot === undefined) {
    throw vaultFault('vault.answer_wrong', `the request was not made from ${volume.device}`, {
      hint: 'the slot may have been regenerated since: export a new request',
    })
  }
  return await openRevealed(vault, slot, passphrase, options)
}

/**
 * The same for a passphrase that was typed at the console: finds its keyslot among the bindings.
 * @throws Fault vault.answer_wrong
 */
export async function applyPassphrase(
  deps: VaultDeps,
  volume: VolumeRef,
  passphrase: Secret,
  options: Pick<ApplyAnswerOptions, 'name' | 'testOnly'> = {},
): Promise<Unlocked> {
  const vault = await openVault(deps, volume)
  for (const slot of bindingsOf(await readInventory(vault), ['automatic', 'recovery'])) {
    if (await testPassphrase(volume, passphrase, slot.keyslot)) {
      return await openRevealed(vault, slot, passphrase, options)
    }
  }
  throw vaultFault('vault.answer_wrong', `no bound keyslot of ${volume.device} opens with this`, {
    hint: 'was it typed whole? it has 43 characters, 54 where clevis made it',
  })
}

function slotOf(inventory: Inventory, sealed: string) {
  return bindingsOf(inventory, ['automatic', 'recovery']).find((slot) => slot.jwe === sealed)
}

async function openRevealed(
  vault: Vault,
  slot: { keyslot: number; salt: string },
  passphrase: Secret,
  options: Pick<ApplyAnswerOptions, 'name' | 'testOnly'>,
): Promise<Unlocked> {
  const { keyslot } = slot
  if (!(await testPassphrase(vault.volume, passphrase, keyslot))) {
    throw vaultFault('vault.answer_wrong', `the answer does not open keyslot ${keyslot}`, {
      hint: 'the keyslot may have been changed since the request was exported: export a new one',
    })
  }
  await markForRegeneration(vault, slot, 'its passphrase was recovered offline')
  await audit(vault, 'apply-answer', { keyslot })
  return await mapOrTest(vault, passphrase, { keyslot, by: 'passphrase' }, options)
}
