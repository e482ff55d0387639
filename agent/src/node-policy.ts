import { createPublicKey } from 'node:crypto'
import { isObject } from '@holdfast/base'
import type { PolicyDocument } from '@holdfast/protocol/documents'
import type { Enrolment } from '@holdfast/protocol/frames'
import { type Policy, parsePolicy, threshold } from '@holdfast/seal'
import { agentFault } from './faults.ts'
import type { GuardianSet } from './life-state.ts'

// Which policies a node's vault is bound to, from what the coordinator gave it. Pure.

/** The name of the automatic keyslot of an epoch; without one, of the temporary way. */
export function wayLabel(set: GuardianSet | undefined): string {
  return set === undefined ? 'temporary' : `epoch ${set.epoch}`
}

/** True for keyslots that this agent has made and may replace. */
export function isOwnLabel(label: string | undefined): boolean {
  return label === 'temporary' || /^epoch \d+$/.test(label ?? '')
}

/** True unless a way in was made for another identity, such as that which panic 2 has destroyed. */
export function isForWard(policy: unknown, ward: string): boolean {
  if (Array.isArray(policy)) return policy.every((part) => isForWard(part, ward))
  if (!isObject(policy)) return true
  if (typeof policy.ward === 'string' && policy.ward !== ward) return false
  return Object.values(policy).every((part) => isForWard(part, ward))
}

/**
 * An enrolment with the pins and holders of the newest manifest that this node has: a key server that
 * was rotated after it enrolled, or a holder who has gone, must not stand in what is bound from now on.
 */
export function inForce(enrolment: Enrolment, policy: PolicyDocument | undefined): Enrolment {
  if (policy === undefined) return enrolment
  const { pins: _, ...rest } = enrolment
  const { vault, holders = enrolment.holders } = policy
  return {
    ...rest,
    ...(vault.pins === undefined ? {} : { pins: vault.pins }),
    ...(holders === undefined ? {} : { holders }),
  }
}

/**
 * How the vault opens unattended: by its guardians, and together with pins of the manifest when there
 * are any; by the temporary way while a genesis node has no guardians.
 */
export function automaticPolicy(ward: string, enrolment: Enrolment, set?: GuardianSet): Policy {
  const { pins, genesis } = enrolment
  const parts: Policy[] = []
  if (set !== undefined) parts.push(peersPolicy(ward, set))
  else if (genesis) parts.push({ kind: 'pin', pin: 'temporary', config: {} })
  if (pins !== undefined) parts.push(parsePolicy('sss', pins))
  const [only] = parts
  if (only === undefined)
    throw agentFault('agent.enrolment_refused', 'nothing is named that would open the vault')
  return parts.length === 1 ? only : threshold(parts.length, parts)
}

function peersPolicy(ward: string, { guardians, threshold: t, epoch }: GuardianSet): Policy {
  const peer = guardians.map(({ node, addresses, identity, key }) => ({
    guardian: node,
    addresses,
    identity,
    ward,
    epoch,
    adv: { keys: [key] },
  }))
  return parsePolicy('sss', { t, pins: { peer } })
}

/** The way back by the holders. @throws Fault agent.recovery_absent */
export function recoveryPolicy({ holders }: Enrolment): Policy {
  if (holders === undefined)
    throw agentFault('agent.recovery_absent', 'the enrolment names no holders for the way back', {
      hint: 'a vault needs one besides the automatic way: name holders in the manifest',
    })
  const person = Object.entries(holders.keys).map(([name, key]) => ({
    name,
    key: createPublicKey(key).export({ format: 'jwk' }),
  }))
  return parsePolicy('sss', { t: holders.threshold, pins: { person } })
}
