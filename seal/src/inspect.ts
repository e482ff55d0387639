import type { Secret } from '@holdfast/base'
import type { Jwe } from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import { parseSealed, pinNameOf, readUse } from './header.ts'
import { checkContentKey, type HolderRequest, holderRequest } from './person.ts'
import type { KnownKey, PinFacts, Pins, SealedUse } from './pin.ts'
import { type Policy, threshold } from './policy.ts'
import { readMembership, readThreshold } from './share-set.ts'
import { storedKeys } from './tang.ts'
import { parseTree } from './tree.ts'

/** Everything a sealed secret says about itself; nothing is asked of the network. */
export interface Inspection extends PinFacts {
  pin: string
  /** What the whole secret is for, where it says. */
  use?: SealedUse
  threshold?: number
  set?: string
  generation?: number
  children?: Inspection[]
}

/** Describes a sealed secret losslessly. @throws Fault seal.sealed_malformed, seal.pin_unknown */
export function inspect(pins: Pins, sealed: string): Inspection {
  const jwe = parseTree(sealed)
  const use = readUse(jwe)
  return { ...inspectNode(pins, jwe), ...(use === undefined ? {} : { use }) }
}

function inspectNode(pins: Pins, jwe: Jwe): Inspection {
  const pin = pinNameOf(jwe)
  if (pin !== 'sss') return { pin, ...pins.get(pin).inspect(jwe) }
  const form = readThreshold(jwe)
  const { set, generation } = form.shares ?? {}
  return {
    pin,
    label: `${form.threshold} of ${form.children.length}`,
    threshold: form.threshold,
    ...(set === undefined ? {} : { set }),
    ...(generation === undefined ? {} : { generation }),
    children: form.children.map((child) => inspectNode(pins, parseSealed(child))),
  }
}

/**
 * The policy that would seal to the same ways in again, key servers pinned to the signing keys that
 * the sealed secret stores.
 */
export function policyOf(pins: Pins, sealed: string): Policy {
  return policyOfNode(pins, parseTree(sealed))
}

function policyOfNode(pins: Pins, jwe: Jwe): Policy {
  const pin = pinNameOf(jwe)
  if (pin !== 'sss') return pins.get(pin).policyOf(jwe)
  const form = readThreshold(jwe)
  const children = form.children.map((child) => policyOfNode(pins, parseSealed(child)))
  return threshold(form.threshold, children)
}

/**
 * All advertised keys that a sealed secret stores, each with its key server: a signature by one
 * carries trust over to that server's next keys. Authentic only once the secret has been opened.
 */
export function knownKeys(sealed: string): KnownKey[] {
  return leavesOfSealed(parseTree(sealed), 'tang').flatMap(storedKeys)
}

/** What a sealed secret is for, where it says; authentic only once it has been opened. */
export function useOf(sealed: string): SealedUse | undefined {
  return readUse(parseSealed(sealed))
}

/** What each holder must be asked, for every `person` share of a sealed secret. All of it is public. */
export function holderRequests(sealed: string): HolderRequest[] {
  return leavesOfSealed(parseTree(sealed), 'person').map(holderRequest)
}

/**
 * Checks what a holder has unwrapped before it is handed to whoever asked for it: that it opens the
 * holder's share of this secret, and that the share is for this use.
 * @throws Fault seal.holder_absent, seal.use_foreign, seal.share_wrong
 */
export function checkUnwrapped(
  sealed: string,
  holder: string,
  contentKey: Secret,
  use: SealedUse,
): void {
  const shares = leavesOfSealed(parseTree(sealed), 'person')
  const share = shares.find((each) => holderRequest(each).name === holder)
  if (share === undefined)
    throw sealFault('seal.holder_absent', `there is no share of ${holder} in what is asked for`)
  checkContentKey(share, contentKey, use)
}

/** The sealed forms of one pin in the tree, from left to right. */
function leavesOfSealed(jwe: Jwe, wanted: string): Jwe[] {
  const pin = pinNameOf(jwe)
  if (pin === wanted) return [jwe]
  if (pin !== 'sss') return []
  return readThreshold(jwe).children.flatMap((child) => leavesOfSealed(parseSealed(child), wanted))
}

/** The set and generation of a sealed secret, where it says. */
export function lineageOf(sealed: string): { set: string; generation: number } | undefined {
  const jwe = parseSealed(sealed)
  if (pinNameOf(jwe) !== 'sss') return readMembership(jwe)
  const { shares } = readThreshold(jwe)
  return shares === undefined ? undefined : { set: shares.set, generation: shares.generation }
}
