import { randomUUID } from 'node:crypto'
import { stat } from 'node:fs/promises'
import type { JsonObject, Secret } from '@holdfast/base'
import type { Policy, Rehearsal } from '@holdfast/seal'
import { afterChange, readInventory, rehearsalJson } from './apply.ts'
import { format, importToken, type KeyDerivation, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import {
  type BindOptions,
  type BindResult,
  newPassphrase,
  type SealedForm,
  sealFresh,
  writeBinding,
} from './rekey.ts'
import { requireBlank } from './signature.ts'
import { type Standing, standingOf } from './standing.ts'
import {
  audit,
  lockVault,
  readProofs,
  timestamp,
  type Vault,
  type VaultDeps,
  vaultAt,
  writeProofs,
  writeRecord,
} from './state.ts'
import { bindingToken, type Mark, ownerToken } from './token.ts'

export interface CreateOptions {
  /** How the volume opens unattended. */
  automatic: Policy
  /** How the holders open it together. This or an owner passphrase is required. */
  recovery?: Policy
  owner?: Secret
  /** For the owner's passphrase. Default Argon2id with cryptsetup's own costs. */
  ownerDerivation?: KeyDerivation
  label?: string
  /** Destroy what is on the device. Default false. */
  overwrite?: boolean
  /** Bind the key servers that answer, and the rest later. */
  reachable?: boolean
  /** Accept recovery that the holders, who are not here, have not proven. */
  unproven?: boolean
  signal?: AbortSignal
  /** Bytes of each metadata area and of the keyslot areas, for small devices. */
  metadataSize?: number
  keyslotsSize?: number
}

export interface Created {
  uuid: string
  automatic: BindResult
  recovery: number | undefined
  owner: number | undefined
  standing: Standing
}

/**
 * Formats a device as a vault. Every secret is sealed and proven before the device is touched, so
 * that a missing key server costs nothing.
 * @throws Fault vault.already_formatted, vault.last_way_in without recovery and owner, those of seal
 */
export async function createVault(
  deps: VaultDeps,
  volume: VolumeRef,
  options: CreateOptions,
): Promise<Created> {
  requireRecovery(options)
  await requireDeviceFile(volume)
  if (options.overwrite !== true) await requireBlank(deps, volume)
  const vault = await vaultAt(deps, volume, randomUUID())
  await using _held = await lockVault(vault)
  using forms = await sealAll(vault, options)
  const { device, header } = volume
  const place = { device, ...(header === undefined ? {} : { header }) }
  const record = { v: 1, uuid: vault.uuid, ...place, regenerate: [] } as const
  await writeRecord(vault, { ...record, regenerate: [], state: 'creating' })
  await formatFirst(vault, forms, options)
  const results = await bindRest(vault, forms, options)
  await writeRecord(vault, { ...record, regenerate: [], state: 'ready' })
  await audit(vault, 'create', { keyslots: results.keyslots })
  await afterChange(vault, 'create')
  const inventory = await readInventory(vault)
  const proofs = await readProofs(vault, inventory.metadata)
  return {
    uuid: vault.uuid,
    automatic: results.automatic,
    recovery: results.recovery,
    owner: options.owner === undefined ? undefined : 0,
    standing: standingOf(inventory, proofs),
  }
}

interface Forms extends Disposable {
  automatic: { form: SealedForm; fresh: Secret }
  recovery: { form: SealedForm; fresh: Secret } | undefined
}

async function sealAll(vault: Vault, options: CreateOptions): Promise<Forms> {
  const { automatic, recovery } = options
  const common = sealOptions(options)
  const secrets: Secret[] = []
  const make = async (policy: Policy, chosen: BindOptions) => {
    const fresh = newPassphrase()
    secrets.push(fresh)
    return { fresh, form: await sealFresh(vault, policy, fresh, chosen) }
  }
  const dispose = () => {
    for (const secret of secrets) secret[Symbol.dispose]()
  }
  try {
    const { reachable = false, unproven = false } = options
    return {
      automatic: await make(automatic, { ...common, reachable }),
      recovery:
        recovery === undefined
          ? undefined
          : await make(recovery, { ...common, unproven, purpose: 'recovery' }),
      [Symbol.dispose]: dispose,
    }
  } catch (error) {
    dispose()
    throw error
  }
}

/** The first keyslot is the owner's where there is one, otherwise the holders'. */
async function formatFirst(vault: Vault, forms: Forms, options: CreateOptions): Promise<void> {
  const { owner, label, metadataSize, keyslotsSize, ownerDerivation } = options
  const sizes = {
    ...(metadataSize === undefined ? {} : { metadataSize }),
    ...(keyslotsSize === undefined ? {} : { keyslotsSize }),
    ...(label === undefined ? {} : { label }),
    uuid: vault.uuid,
    keyslot: 0,
  }
  if (owner !== undefined) {
    const derivation = ownerDerivation ?? { kind: 'argon2id' }
    await format(vault.volume, owner, { ...sizes, derivation })
    await writeFirst(vault, ownerToken(0, mark('owner')))
    return
  }
  const recovery = forms.recovery
  if (recovery === undefined) return
  await format(vault.volume, recovery.fresh, { ...sizes, derivation: { kind: 'full_entropy' } })
  const token = bindingToken(0, recovery.form.sealed, mark('recovery'))
  await writeFirst(vault, token, recovery.form.rehearsal)
}

async function writeFirst(vault: Vault, token: JsonObject, rehearsal?: Rehearsal): Promise<void> {
  await importToken(vault.volume, 0, token)
  const { metadata } = await readInventory(vault)
  const first = metadata.keyslots.get(0)
  if (first === undefined) return
  const found = { keyslot: 0, salt: first.salt, at: timestamp(vault) }
  const proof =
    rehearsal === undefined
      ? { ...found, state: 'proven' as const }
      : { ...found, state: rehearsal.state, rehearsal: rehearsalJson(rehearsal) }
  await writeProofs(vault, metadata, [proof])
}

async function bindRest(vault: Vault, forms: Forms, options: CreateOptions) {
  const first = options.owner ?? forms.recovery?.fresh
  if (first === undefined) throw noRecovery()
  // The forms and the caller own the passphrase: nothing to wipe here.
  const existing = { passphrase: first, keyslot: 0, [Symbol.dispose]: () => undefined }
  const write = async (
    purpose: 'automatic' | 'recovery',
    { form, fresh }: { form: SealedForm; fresh: Secret },
  ) =>
    await writeBinding(vault, await readInventory(vault), form, {
      operation: 'bind',
      purpose,
      generation: 1,
      existing,
      fresh,
      options: sealOptions(options),
    })
  const automatic = await write('automatic', forms.automatic)
  const second =
    options.owner === undefined || forms.recovery === undefined
      ? undefined
      : await write('recovery', forms.recovery)
  const recovery = forms.recovery === undefined ? undefined : (second?.keyslot ?? 0)
  const keyslots = [0, automatic.keyslot, ...(second === undefined ? [] : [second.keyslot])]
  return { automatic, recovery, keyslots }
}

function sealOptions({ signal, label }: CreateOptions): BindOptions {
  return {
    ...(signal === undefined ? {} : { signal }),
    ...(label === undefined ? {} : { label }),
  }
}

function mark(purpose: Mark['purpose']): Mark {
  return { v: 1, purpose, generation: 1 }
}

function requireRecovery({ owner, recovery }: CreateOptions): void {
  if (owner === undefined && recovery === undefined) throw noRecovery()
}

function noRecovery(): Error {
  return vaultFault('vault.last_way_in', 'a vault needs a way back besides the automatic one', {
    hint: 'give a recovery policy of holders, or an owner passphrase',
  })
}

async function requireDeviceFile({ device }: VolumeRef): Promise<void> {
  const found = await stat(device).catch(() => undefined)
  if (found === undefined || found.isDirectory()) {
    throw vaultFault('vault.device_absent', `${device} is not a device or file that can be read`)
  }
}
