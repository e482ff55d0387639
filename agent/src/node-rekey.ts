import { canonicalJson } from '@holdfast/base'
import type { Enrolment } from '@holdfast/protocol/frames'
import { formatPolicy, type Policy } from '@holdfast/seal'
import {
  bindVault,
  editVault,
  type ListedSlot,
  listVault,
  regenVault,
  resumeVault,
  unbindVault,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import type { GuardianSet } from './life-state.ts'
import { automaticPolicy, recoveryPolicy, wayLabel } from './node-policy.ts'

// A new passphrase for every way in that the node can renew without anybody. Each new one is proven,
// or sealed for keys that were proven elsewhere, before the old one goes, by the vault's own journal;
// done again after a power cut it renews once more and leaves nothing doubled.

/** What came of one way in. */
export interface RekeyedWay {
  keyslot: number
  label: string
  outcome: 'renewed' | 'kept'
  /** The keyslot that it had before. */
  was?: number
}

export interface Rekeying {
  /** Changes the header while nobody else does. */
  change: <T>(act: (deps: VaultDeps, volume: VolumeRef) => Promise<T>) => Promise<T>
  /** This node's id. */
  node: string
  /** As the node enrolled, and with what the newest manifest says. */
  enrolled: Enrolment | undefined
  current: Enrolment | undefined
  /** The guardians that it has proven. */
  set: GuardianSet | undefined
  signal: AbortSignal
  onWay: (way: RekeyedWay, of: number) => void
}

/** Of the holders' way in once it was moved to others than the enrolment named. */
const holdersLabel = 'holders'

/**
 * Renews the automatic ways, with the manifest's pins of today, and seals the holders' way anew when the manifest names others; what else
 * people have bound is named and left: it needs them.
 */
export async function rekeyNode(rekeying: Rekeying): Promise<RekeyedWay[]> {
  const { change, onWay } = rekeying
  await change(resumeVault)
  const { slots } = await change(listVault)
  const ways: RekeyedWay[] = []
  for (const slot of slots) {
    const { keyslot, label = '' } = slot
    const renewed = await renew(rekeying, slot)
    const way: RekeyedWay =
      renewed === undefined
        ? { keyslot, label, outcome: 'kept' }
        : { keyslot: renewed, label, outcome: 'renewed', was: keyslot }
    ways.push(way)
    onWay(way, slots.length)
  }
  return ways
}

/** The keyslot in whose place a way stands now; undefined for one that is left alone. */
async function renew(rekeying: Rekeying, slot: ListedSlot): Promise<number | undefined> {
  const { keyslot, purpose, label } = slot
  const { change, signal } = rekeying
  if (purpose === 'recovery') return await moveToHolders(rekeying, slot)
  if (purpose !== 'automatic') return undefined
  const options = { signal, ...(label === undefined ? {} : { label }) }
  const wanted = wantedOf(rekeying, slot)
  const changed = await change((...vault) =>
    wanted === undefined
      ? regenVault(...vault, keyslot, options)
      : editVault(...vault, keyslot, wanted, { ...options, force: true }),
  )
  return changed.keyslot
}

/** What the manifest wants in the place of the agent's own way, where that is something else. */
function wantedOf({ node, current, set }: Rekeying, slot: ListedSlot): Policy | undefined {
  if (current === undefined || slot.label !== wayLabel(set)) return undefined
  const wanted = automaticPolicy(node, { ...current, genesis: true }, set)
  return isBoundTo(slot, wanted) ? undefined : wanted
}

/**
 * Who is not a holder any more must not open the vault. The new holders have proven their keys to
 * the coordinator; here nobody can be asked for theirs. A way that was made for the identity that
 * panic 2 has destroyed is made anew, too: holders open it only when they are told of that.
 */
async function moveToHolders(
  { change, node, enrolled, current, signal }: Rekeying,
  slot: ListedSlot,
): Promise<number | undefined> {
  if (enrolled?.holders === undefined || current === undefined) return undefined
  const wanted = recoveryPolicy(current)
  const isRight = (way: ListedSlot) => isBoundTo(way, wanted) && way.inspection?.use?.of === node
  const isOurs = slot.label === holdersLabel || isBoundTo(slot, recoveryPolicy(enrolled))
  if (!isOurs || isRight(slot)) return undefined
  const { slots } = await change(listVault)
  const made = slots.find((other) => other.label === holdersLabel && isRight(other))
  const means = { unproven: true, again: true, signal } as const
  const options = { purpose: 'recovery', label: holdersLabel, ...means } as const
  const added = made ?? (await change((...vault) => bindVault(...vault, wanted, options)))
  await change((...vault) => unbindVault(...vault, slot.keyslot, { signal }))
  return added.keyslot
}

function isBoundTo({ policy }: ListedSlot, wanted: Policy): boolean {
  return policy !== undefined && canonicalJson(policy) === canonicalJson(formatPolicy(wanted))
}
