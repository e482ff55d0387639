import { isFault } from '@holdfast/base'
import type { NodeReport } from '@holdfast/protocol/frames'
import { type ListedSlot, vaultFault } from '@holdfast/vault'
import type { LifeState } from './life-state.ts'
import type { NetworkStatus } from './node-network.ts'
import type { NodeVault } from './node-vault.ts'

// What a node says about itself: to the coordinator with every change, and to whoever asks for its
// status.

export interface ReportFacts {
  state: LifeState
  vault: NodeVault
  /** Of services and their health. */
  works: Pick<NodeReport, 'services' | 'health'>
  network: NetworkStatus
  keys: NonNullable<NodeReport['keys']>
  /** Highest coordinator generation seen. */
  generation: number
  wards: number
  incidents: readonly string[]
  uptimeSeconds: number
}

/** The report; a vault that cannot be read has no ways. */
export async function reportOf(facts: ReportFacts): Promise<NodeReport> {
  const { state, vault } = facts
  const { set } = state
  const hasVault = state.phase !== 'factory' && state.phase !== 'rescue'
  const slots = hasVault ? await slotsOf(vault) : []
  return {
    phase: state.phase,
    generation: facts.generation,
    epoch: set?.epoch ?? 0,
    threshold: set?.threshold ?? 0,
    guardians: set?.guardians.map(({ node }) => node) ?? [],
    wards: facts.wards,
    ways: slots.map(wayOf),
    mapped: hasVault && (await vault.isMapped()),
    ...facts.network,
    keys: facts.keys,
    ...(state.held === undefined ? {} : { held: state.held }),
    ...facts.works,
    incidents: facts.incidents.slice(-32).map((text) => text.slice(0, 300)),
    lastErrors: state.lastErrors.toReversed(),
    uptimeSeconds: facts.uptimeSeconds,
  }
}

async function slotsOf(vault: NodeVault): Promise<readonly ListedSlot[]> {
  try {
    return (await vault.list()).slots
  } catch (error) {
    // Not formatted yet, or destroyed: both are what the phase says.
    if (isFault(error) && error.code in vaultFault.codes) return []
    throw error
  }
}

function wayOf({ keyslot, purpose, label = '', proof }: ListedSlot): NodeReport['ways'][number] {
  const provenAt = proof?.provenAt === undefined ? undefined : Date.parse(proof.provenAt)
  return {
    keyslot,
    purpose: purpose === 'unknown' ? 'foreign' : purpose,
    label,
    state: proof?.state ?? 'not_tried',
    ...(provenAt === undefined ? {} : { provenAt }),
  }
}
