import { isObject, type JsonObject } from '@holdfast/base'
import { sealFault } from './faults.ts'

/** One way in, with its clevis-style configuration. */
export interface PinPolicy {
  readonly kind: 'pin'
  readonly pin: string
  readonly config: JsonObject
}

/** Any `threshold` of the children. clevis calls this the `sss` pin. */
export interface ThresholdPolicy {
  readonly kind: 'threshold'
  readonly threshold: number
  readonly children: readonly Policy[]
}

/** A tree of thresholds over pins. */
export type Policy = PinPolicy | ThresholdPolicy

/** How deep thresholds may nest, how many children one may have, and how many pins a tree. */
export const depthLimit = 8
export const childLimit = 64
export const leafLimit = 256

/**
 * Reads a policy in clevis's form: a pin's name and its configuration, where `sss` holds
 * `{"t":2,"pins":{"tang":[{...},{...}],"tpm2":{}}}`. Order of members is the order of the children.
 * @throws Fault seal.policy_invalid
 */
export function parsePolicy(pin: string, config: unknown): Policy {
  const policy = parseNode(pin, config, 0)
  checkSize(policy)
  return policy
}

/** @throws Fault seal.policy_invalid when a sealed secret of this shape would not be opened */
export function checkSize(policy: Policy): void {
  if (depthOf(policy) > depthLimit) throw invalid(`thresholds are nested deeper than ${depthLimit}`)
  if (leavesOf(policy).length > leafLimit) throw invalid(`it has more than ${leafLimit} pins`)
}

function depthOf(policy: Policy): number {
  return policy.kind === 'pin' ? 0 : 1 + Math.max(0, ...policy.children.map(depthOf))
}

function parseNode(pin: string, config: unknown, depth: number): Policy {
  if (!/^[a-z][a-z0-9_-]{0,31}$/.test(pin)) throw invalid(`"${pin.slice(0, 40)}" is not a pin name`)
  if (!isObject(config)) throw invalid(`the configuration of ${pin} is not a JSON object`)
  if (pin !== 'sss') return { kind: 'pin', pin, config }
  if (depth >= depthLimit) throw invalid(`thresholds are nested deeper than ${depthLimit}`)
  const { t = 1, pins, ...rest } = config
  const [extra] = Object.keys(rest)
  if (extra !== undefined) throw invalid(`sss does not know the member "${extra}"`)
  if (!isObject(pins)) {
    throw invalid('sss needs "pins": an object of pin names, each with one configuration or a list')
  }
  const children = Object.entries(pins).flatMap(([name, configs]) =>
    (Array.isArray(configs) ? configs : [configs]).map((child) =>
      parseNode(name, child, depth + 1),
    ),
  )
  return threshold(t, children)
}

/** A threshold node. @throws Fault seal.policy_invalid unless 1 <= t <= number of children */
export function threshold(t: unknown, children: readonly Policy[]): ThresholdPolicy {
  if (children.length > childLimit) throw invalid(`a threshold has more than ${childLimit} pins`)
  if (typeof t !== 'number' || !Number.isInteger(t) || t < 1 || t > children.length) {
    throw invalid(`the threshold "t" must be a whole number from 1 to ${children.length}`)
  }
  return { kind: 'threshold', threshold: t, children }
}

/**
 * The policy in clevis's form. Children of one pin that do not stand together are gathered, because
 * that form cannot say otherwise; the threshold does not depend on their order.
 */
export function formatPolicy(policy: Policy): { pin: string; config: JsonObject } {
  if (policy.kind === 'pin') return { pin: policy.pin, config: policy.config }
  const pins = new Map<string, JsonObject[]>()
  for (const child of policy.children) {
    const { pin, config } = formatPolicy(child)
    pins.set(pin, [...(pins.get(pin) ?? []), config])
  }
  return { pin: 'sss', config: { t: policy.threshold, pins: Object.fromEntries(pins) } }
}

/** Every pin of a policy, from left to right. */
export function leavesOf(policy: Policy): PinPolicy[] {
  return policy.kind === 'pin' ? [policy] : policy.children.flatMap(leavesOf)
}

/** The same tree with each pin replaced by `change(pin)`. */
export function mapPins(policy: Policy, change: (pin: PinPolicy) => PinPolicy): Policy {
  if (policy.kind === 'pin') return change(policy)
  return { ...policy, children: policy.children.map((child) => mapPins(child, change)) }
}

function invalid(reason: string): Error {
  return sealFault('seal.policy_invalid', `the policy is not valid: ${reason}`)
}
