import { type Clock, type Fault, type Secret, systemClock } from '@holdfast/base'
import { combineShares, decryptJwe, type Jwe } from '@holdfast/crypto'
import { parseSealed, pinNameOf } from './header.ts'
import { asFault, open } from './open.ts'
import type { Pins } from './pin.ts'
import { checkMembership, checkShare, readThreshold, type ThresholdForm } from './share-set.ts'

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
  const { rehearsal, secret } = await rehearseNode(pins, sealed, options)
  secret?.[Symbol.dispose]()
  return rehearsal
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
 * Proves the shares together: the first t of them open the secret, and each further one does with
 * t-1 of those. A share that does not fit is marked failed. (Ours were checked alone already;
 * clevis's can only be checked this way.)
 */
function confirm(outcomes: Outcome[], jwe: Jwe, form: ThresholdForm): Secret | undefined {
  const proven = outcomes.filter(({ secret }) => secret !== undefined)
  const shares = proven.flatMap(({ secret }) => (secret === undefined ? [] : [secret]))
  const base = shares.slice(0, form.threshold)
  if (base.length < form.threshold) return undefined
  const opened = combine(base, jwe, form)
  if (form.shares !== undefined || opened === undefined) {
    if (opened === undefined) for (const outcome of proven) markWrong(outcome)
    return opened
  }
  proven.slice(form.threshold).forEach((outcome, index) => {
    const extra = shares[form.threshold + index]
    if (extra === undefined) return
    const again = combine([...base.slice(1), extra], jwe, form)
    if (again === undefined) markWrong(outcome)
    again?.[Symbol.dispose]()
  })
  return opened
}

function combine(shares: readonly Secret[], jwe: Jwe, form: ThresholdForm): Secret | undefined {
  try {
    using key = combineShares(shares, form.prime)
    return decryptJwe(jwe, key)
  } catch {
    return undefined
  }
}

function markWrong(outcome: Outcome): void {
  outcome.rehearsal.state = 'failed'
}
