import { type Fault, isFault, type JsonObject, Secret } from '@holdfast/base'
import {
  formatPolicy,
  type Pins,
  type Policy,
  type SealOptions,
  seal,
  sealFault,
} from '@holdfast/seal'

// Enrolment with the servers that answer today. The threshold is never lowered: a policy of 2 of 3 with
// one server away becomes 2 of 2 until the third is back.

/** The part of a policy that can be sealed to now. */
export interface ReachablePart {
  policy: Policy
  /** Labels of the pins left out. */
  missing: readonly string[]
  /** The whole policy, to be bound later; undefined when nothing is left out. */
  wanted: { pin: string; config: JsonObject } | undefined
}

/**
 * Finds the pins that can be sealed to, each tried with a throw-away secret.
 * @throws Fault of the first unreachable pin when what is left does not meet a threshold; anything
 *   but unreachability, such as a wrong thumbprint, at once
 */
export async function reachablePart(
  pins: Pins,
  policy: Policy,
  options: SealOptions,
): Promise<ReachablePart> {
  const found = new Map<Policy, Fault>()
  await probe(pins, policy, options, found)
  // In the policy's order, whichever was the first to fail.
  const faults = new Map(
    pinsIn(policy).flatMap((pin): [Policy, Fault][] => {
      const fault = found.get(pin)
      return fault === undefined ? [] : [[pin, fault]]
    }),
  )
  if (faults.size === 0) return { policy, missing: [], wanted: undefined }
  const missing = [...faults.keys()].map((pin) => labelOf(pins, pin))
  return { policy: withoutPins(policy, faults), missing, wanted: formatPolicy(policy) }
}

/** The policy without these pins; pure. @throws the fault of a pin that cannot be spared */
export function withoutPins(policy: Policy, missing: ReadonlyMap<Policy, Fault>): Policy {
  const rest = prune(policy, missing)
  if (rest !== undefined) return rest
  const [first] = missing.values()
  throw first ?? sealFault('seal.policy_invalid', 'the policy has no pins')
}

function prune(policy: Policy, missing: ReadonlyMap<Policy, Fault>): Policy | undefined {
  if (policy.kind === 'pin') return missing.has(policy) ? undefined : policy
  const children = policy.children.flatMap((child) => prune(child, missing) ?? [])
  return children.length < policy.threshold ? undefined : { ...policy, children }
}

async function probe(
  pins: Pins,
  policy: Policy,
  options: SealOptions,
  faults: Map<Policy, Fault>,
): Promise<void> {
  if (policy.kind === 'threshold') {
    await Promise.all(policy.children.map((child) => probe(pins, child, options, faults)))
    return
  }
  try {
    using nothing = Secret.random(32)
    await seal(pins, policy, nothing, options)
  } catch (error) {
    if (!isFault(error) || error.kind !== 'unavailable') throw error
    faults.set(policy, error)
  }
}

function pinsIn(policy: Policy): Policy[] {
  return policy.kind === 'pin' ? [policy] : policy.children.flatMap(pinsIn)
}

function labelOf(pins: Pins, policy: Policy): string {
  return policy.kind === 'pin' ? pins.get(policy.pin).label(policy.config) : 'threshold'
}
