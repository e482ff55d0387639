import type { JsonObject } from '@holdfast/base'
import { formatPolicy, type Inspection } from '@holdfast/seal'
import { readInventory } from './apply.ts'
import type { VolumeRef } from './cryptsetup.ts'
import { bindingsOf, type Orphan, type Slot, type SlotOwner, type Space } from './inventory.ts'
import { journalOf } from './journal.ts'
import { type Standing, standingOf } from './standing.ts'
import { isSame, openVault, type Proof, readProofs, readRecord, type VaultDeps } from './state.ts'

export type { Standing }

/** One keyslot as it is shown. */
export interface ListedSlot {
  keyslot: number
  owner: SlotOwner
  purpose: Slot['purpose']
  token?: number
  label?: string
  generation?: number
  /** The policy in clevis's form, key servers with the thumbprints that the token stores. */
  policy?: { pin: string; config: JsonObject }
  /** Everything the sealed secret says about itself: urls, thumbprints, curves, thresholds. */
  inspection?: Inspection
  /** The whole policy, where only the reachable part of it is bound. */
  wanted?: { pin: string; config: JsonObject }
  proof?: Proof
  /** Why its passphrase has to be replaced. */
  regenerate?: string
  problem?: string
  /** `1: tang '{"url":"..."}'`, as `clevis luks list` prints it. */
  line?: string
}

export interface VaultListing {
  uuid: string
  device: string
  slots: readonly ListedSlot[]
  orphans: readonly Orphan[]
  duplicates: readonly (readonly number[])[]
  space: Space
  requirements: readonly string[]
  standing: Standing
  /** The operation that a crash interrupted; the next change settles it. */
  unfinished?: string
}

/** Lists a volume's ways in, losslessly. Changes nothing and asks nobody. */
export async function listVault(deps: VaultDeps, volume: VolumeRef): Promise<VaultListing> {
  const vault = await openVault(deps, volume)
  const inventory = await readInventory(vault)
  const proofs = await readProofs(vault, inventory.metadata)
  const { regenerate } = await readRecord(vault)
  const entry = await journalOf(vault).read()
  const slots = inventory.slots.map((slot) => {
    const proof = proofs.find((candidate) => isSame(candidate, slot))
    const mark = regenerate.find((candidate) => isSame(candidate, slot))
    return {
      ...listed(slot),
      ...(proof === undefined ? {} : { proof }),
      ...(mark === undefined ? {} : { regenerate: mark.reason }),
    }
  })
  return {
    uuid: vault.uuid,
    device: volume.device,
    slots,
    orphans: inventory.orphans,
    duplicates: inventory.duplicates,
    space: inventory.space,
    requirements: inventory.requirements,
    standing: standingOf(inventory, proofs),
    ...(entry === undefined ? {} : { unfinished: entry.operation }),
  }
}

/** A way in through holders, whose sealed secret stands in the header for everybody to read. */
export interface RecoveryWay {
  keyslot: number
  label: string
  /** A compact JWE of the passphrase. */
  sealed: string
}

/** The holders' ways into a volume, to be opened by them somewhere else. Asks nobody. */
export async function recoveryWays(deps: VaultDeps, volume: VolumeRef): Promise<RecoveryWay[]> {
  const inventory = await readInventory(await openVault(deps, volume))
  return bindingsOf(inventory, ['recovery']).map(({ keyslot, mark, jwe }) => ({
    keyslot,
    label: mark?.label ?? '',
    sealed: jwe,
  }))
}

/** The line that `clevis luks list` prints for a binding; it contains no space but the two. */
export function clevisLine(keyslot: number, policy: { pin: string; config: JsonObject }): string {
  return `${keyslot}: ${policy.pin} '${JSON.stringify(policy.config)}'`
}

function listed(slot: Slot): ListedSlot {
  const { keyslot, owner, purpose, token, mark, inspection, problem } = slot
  const policy = slot.policy === undefined ? undefined : formatPolicy(slot.policy)
  const line =
    policy === undefined || purpose !== 'automatic' ? undefined : clevisLine(keyslot, policy)
  return {
    keyslot,
    owner,
    purpose,
    ...(token === undefined ? {} : { token }),
    ...(mark?.label === undefined ? {} : { label: mark.label }),
    ...(mark === undefined ? {} : { generation: mark.generation }),
    ...(policy === undefined ? {} : { policy }),
    ...(inspection === undefined ? {} : { inspection }),
    ...(mark?.wanted === undefined ? {} : { wanted: mark.wanted }),
    ...(problem === undefined ? {} : { problem }),
    ...(line === undefined ? {} : { line }),
  }
}
