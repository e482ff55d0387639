import { type Clock, type Fault, type Secret, systemClock } from '@holdfast/base'
import type { Jwe } from '@holdfast/crypto'
import { asFault } from './faults.ts'
import { parseSealed, pinNameOf } from './header.ts'
import { open, subsets, tryShares } from './open.ts'
import type { Pins } from './pin.ts'
import {
  checkMembership,
  checkShare,
  readThreshold,
  type ThresholdForm,
  wrongShare,
} from './share-set.ts'
import { parseTree } from './tree.ts'

// A rehearsal exercises every pin, not just enough of them, and reveals nothing: what a pin gives
// is checked and wiped. A way in that has not been proven counts as missing.

export interface Rehearsal {
  pin: string
  label: string
  /** `not_tried`: it needs a person who is not here. */
  state: 'proven' | 'failed' | 'not_tried'
  fault?: Fault
  milliseconds: number
  threshold?: number
  /** How many more pins than needed are proven; negative when too few are. */
  margin?: number
  children?: Rehearsal[]
}

export interface RehearseOptions {
  /** Milliseconds for each pin. Default 10 000. */
  timeout?: number
  signal?: AbortSignal
  clock?: Clock
  /** Ask people too; otherwise pins that need one are not tried. Default true. */
  people?: boolean
}

/** Proves each pin of a sealed secret. Only a secret that cannot be read at all is a fault. */
export async function rehearse(
  pins: Pins,
  sealed: string,
  options: RehearseOptions = {},
): Promise<Rehearsal> {
  const { rehearsal, secret } = await rehearseRevealing(pins, sealed, options)
  secret?.[Symbol.dispose]()
  return rehearsal
}

/** The same, and the secret where it opened: for proving what it is. The caller disposes of it. */
export async function rehearseRevealing(
  pins: Pins,
  sealed: string,
  options: RehearseOptions,
): Promise<Outcome> {
  parseTree(sealed)
  return await rehearseNode(pins, sealed, options)
}

interface Outcome {
  rehearsal: Rehearsal
  secret?: Secret
}

async function rehearseNode(
  pins: Pins,
  sealed: string,
  options: RehearseOptions,
): Promise<Outcome> {
  const jwe = parseSealed(sealed)
  return pinNameOf(jwe) === 'sss'
    ? await rehearseThreshold(pins, jwe, options)
    : await rehearsePin(pins, jwe, sealed, options)
}

async function rehearsePin(
  pins: Pins,
  jwe: Jwe,
  sealed: string,
  options: RehearseOptions,
): Promise<Outcome> {
  const { clock = systemClock, people = true, timeout, signal } = options
  const name = pinNameOf(jwe)
  const started = clock.now()
  const outcome = (state: Rehearsal['state'], label: string, fault?: Fault): Rehearsal => {
    const milliseconds = clock.now() - started
    return { pin: name, label, state, milliseconds, ...(fault === undefined ? {} : { fault }) }
  }
  let label = name
  try {
    const pin = pins.get(name)
    label = pin.inspect(jwe).label
    if (pin.interactive && !people) return { rehearsal: outcome('not_tried', label) }
    const limits = {
      ...(timeout === undefined ? {} : { timeout }),
      ...(signal === undefined ? {} : { signal }),
    }
    const secret = await open(pins, sealed, limits)
    return { rehearsal: outcome('proven', label), secret }
  } catch (error) {
    signal?.throwIfAborted()
    const fault = asFault(error)
    const absent = ['seal.holder_absent', 'seal.passphrase_absent'].includes(fault.code)
    return { rehearsal: outcome(absent ? 'not_tried' : 'failed', label, fault) }
  }
}

async function rehearseThreshold(pins: Pins, jwe: Jwe, options: RehearseOptions): Promise<Outcome> {
  const { clock = systemClock } = options
  const started = clock.now()
  const form = readThreshold(jwe)
  const outcomes = await Promise.all(
    form.children.map((child, index) => rehearseShare(pins, child, index, form, options)),
  )
  const secret = confirm(outcomes, jwe, form)
  const children = outcomes.map(({ rehearsal }) => rehearsal)
  for (const { secret: share } of outcomes) share?.[Symbol.dispose]()
  const margin = children.filter(({ state }) => state === 'proven').length - form.threshold
  const untried = children.filter(({ state }) => state === 'not_tried').length
  const rehearsal: Rehearsal = {
    pin: 'sss',
    label: `${form.threshold} of ${children.length}`,
    state: margin >= 0 ? 'proven' : margin + untried >= 0 ? 'not_tried' : 'failed',
    milliseconds: clock.now() - started,
    threshold: form.threshold,
    margin,
    children,
  }
  return secret === undefined ? { rehearsal } : { rehearsal, secret }
}

async function rehearseShare(
  pins: Pins,
  child: string,
  index: number,
  form: ThresholdForm,
  options: RehearseOptions,
): Promise<Outcome> {
  const fallback = { pin: 'unknown', label: `share ${index + 1}`, milliseconds: 0 }
  let outcome: Outcome = { rehearsal: { ...fallback, state: 'failed' } }
  try {
    checkMembership(parseSealed(child), index, form)
    outcome = await rehearseNode(pins, child, options)
    if (outcome.secret !== undefined) checkShare(outcome.secret, index, form)
    return outcome
  } catch (error) {
    options.signal?.throwIfAborted()
    outcome.secret?.[Symbol.dispose]()
    return { rehearsal: { ...outcome.rehearsal, state: 'failed', fault: asFault(error) } }
  }
}

/**
 * Proves the shares together: some t of them open the secret, and each further one does with t-1
 * of those. A share that does not fit is marked failed. (Ours were checked alone already;
 * clevis's can only be checked this way.)
 */
function confirm(outcomes: readonly Outcome[], jwe: Jwe, form: ThresholdForm): Secret | undefined {
  const proven = outcomes.flatMap(({ rehearsal, secret }, index) =>
    secret === undefined ? [] : [{ rehearsal, share: secret, index }],
  )
  for (const base of subsets(proven, form.threshold)) {
    const opened = tryShares(sharesOf(base), jwe, form)
    if (opened === undefined) continue
    const others = form.shares === undefined ? proven.filter((one) => !base.includes(one)) : []
    for (const other of others) {
      using again = tryShares(sharesOf([...base.slice(1), other]), jwe, form)
      if (again === undefined) markWrong(other, form)
    }
    return opened
  }
  if (proven.length >= form.threshold) for (const one of proven) markWrong(one, form)
  return undefined
}

interface ProvenShare {
  rehearsal: Rehearsal
  share: Secret
  index: number
}

function sharesOf(proven: readonly ProvenShare[]): Secret[] {
  return proven.map(({ share }) => share)
}

function markWrong({ rehearsal, index }: ProvenShare, form: ThresholdForm): void {
  rehearsal.state = 'failed'
  rehearsal.fault = wrongShare(form, index)
}
