import {
  type Clock,
  type Fault,
  isFault,
  runningTimeout,
  type Secret,
  systemClock,
} from '@holdfast/base'
import { combineShares, decryptJwe, type Jwe } from '@holdfast/crypto'
import { asFault, sealFault } from './faults.ts'
import { parseSealed, pinNameOf } from './header.ts'
import type { Pin, Pins } from './pin.ts'
import { untilAborted, untilOpen } from './retry.ts'
import {
  checkMembership,
  checkShare,
  readThreshold,
  shareName,
  type ThresholdForm,
} from './share-set.ts'
import { parseTree } from './tree.ts'

// Rules of this file: all children of a threshold start at once, so a local pin or a person never
// waits for the network; each has its own deadline; when t shares have come the rest are
// cancelled; when t shares cannot come any more nobody is kept at a prompt. A share that is
// wrong is named and dropped, and never spoils the others.

/** What happens while a secret is being opened. Never carries a secret. */
export interface OpenEvent {
  /** Positions from the root, such as [0, 2]; the root is []. */
  path: readonly number[]
  pin: string
  label: string
  state: 'started' | 'opened' | 'failed' | 'retrying' | 'cancelled'
  fault?: Fault
  /** Milliseconds until the next attempt, when retrying. */
  wait?: number
}

export interface OpenOptions {
  /**
   * Milliseconds one attempt of one pin may take. Default 10 000. Local pins get a minute at least,
   * for a TPM may be slow; people are not timed.
   */
  timeout?: number
  /** Ask network pins again for ever, with jittered back-off, until opened or aborted. */
  retry?: boolean
  signal?: AbortSignal
  onEvent?: (event: OpenEvent) => void
  /** Decides how the waits between attempts pass. */
  clock?: Clock
}

/** Milliseconds that a local pin may take whatever the timeout. */
const localTimeout = 60_000

interface Walk {
  readonly pins: Pins
  readonly timeout: number
  readonly retry: boolean
  readonly onEvent: (event: OpenEvent) => void
  readonly clock: Clock
  /** Aborted when no answer of a person can be of use any more. */
  readonly people: AbortSignal
}

/**
 * Opens a sealed secret. Nothing leaves before it has been authenticated.
 * @param sealed compact JWE, made here or by clevis
 * @throws Fault seal.threshold_not_met naming every pin that did not open and why, or the one
 *   pin's own fault
 */
export async function open(pins: Pins, sealed: string, options: OpenOptions = {}): Promise<Secret> {
  const {
    timeout = 10_000,
    retry = false,
    onEvent = () => undefined,
    clock = systemClock,
  } = options
  const signal = options.signal ?? new AbortController().signal
  const people = new AbortController().signal
  const walk = { pins, timeout, retry, onEvent, clock, people }
  return await openNode(walk, parseTree(sealed), [], signal)
}

async function openNode(
  walk: Walk,
  jwe: Jwe,
  path: readonly number[],
  signal: AbortSignal,
): Promise<Secret> {
  const name = pinNameOf(jwe)
  if (name === 'sss') return await openThreshold(walk, jwe, path, signal)
  return await openPin(walk, walk.pins.get(name), jwe, path, signal)
}

async function openPin(
  walk: Walk,
  pin: Pin,
  jwe: Jwe,
  path: readonly number[],
  signal: AbortSignal,
): Promise<Secret> {
  const { label } = pin.inspect(jwe)
  const tell = (event: Pick<OpenEvent, 'state' | 'fault' | 'wait'>) =>
    walk.onEvent({ path, pin: pin.name, label, ...event })
  tell({ state: 'started' })
  const stop = pin.interactive ? AbortSignal.any([signal, walk.people]) : signal
  try {
    const secret = await attempts(walk, pin, jwe, stop, (fault, wait) =>
      tell({ state: 'retrying', fault, wait }),
    )
    tell({ state: 'opened' })
    return secret
  } catch (error) {
    if (stop.aborted) tell({ state: 'cancelled' })
    else tell({ state: 'failed', fault: asFault(error) })
    throw error
  }
}

async function attempts(
  walk: Walk,
  pin: Pin,
  jwe: Jwe,
  signal: AbortSignal,
  onFailure: (fault: Fault, wait: number) => void,
): Promise<Secret> {
  if (pin.interactive) return await untilAborted(pin.open(jwe, signal), signal)
  const attempt = () => timed(walk, pin, jwe, signal)
  if (!walk.retry || pin.local) return await attempt()
  return await untilOpen(attempt, signal, onFailure, walk.clock.sleep)
}

async function timed(walk: Walk, pin: Pin, jwe: Jwe, signal: AbortSignal): Promise<Secret> {
  const timeout = pin.local ? Math.max(walk.timeout, localTimeout) : walk.timeout
  using late = runningTimeout(timeout)
  const both = AbortSignal.any([signal, late.signal])
  try {
    return await untilAborted(pin.open(jwe, both), both)
  } catch (error) {
    if (!late.signal.aborted || signal.aborted) throw error
    const text = `${pin.name} ${pin.inspect(jwe).label} did not answer within ${timeout} ms`
    throw sealFault('seal.pin_timeout', text)
  }
}

async function openThreshold(
  walk: Walk,
  jwe: Jwe,
  path: readonly number[],
  signal: AbortSignal,
): Promise<Secret> {
  const form = readThreshold(jwe)
  const rest = new AbortController()
  const both = AbortSignal.any([signal, rest.signal])
  const hopeless = new AbortController()
  const people = AbortSignal.any([walk.people, hopeless.signal])
  const found = new ShareCollector(jwe, form)
  const failures: { name: string; fault: Fault }[] = []
  try {
    const tasks = form.children.map(async (child, index) => {
      try {
        using share = await openChild({ ...walk, people }, child, form, [...path, index], both)
        if (found.add(share)) rest.abort()
      } catch (error) {
        if (both.aborted || (people.aborted && !isFault(error))) return
        failures.push({ name: shareName(form, index), fault: asFault(error) })
        if (form.children.length - failures.length < form.threshold) hopeless.abort()
      }
    })
    await firstOf(Promise.all(tasks), rest.signal)
    signal.throwIfAborted()
    if (found.secret === undefined) throw notMet(form, found.count, failures)
    return found.secret
  } finally {
    found[Symbol.dispose]()
  }
}

/** Opens one child and checks its share alone. */
async function openChild(
  walk: Walk,
  child: string,
  form: ThresholdForm,
  path: readonly number[],
  signal: AbortSignal,
): Promise<Secret> {
  const index = path.at(-1) ?? 0
  const sealed = parseSealed(child)
  checkMembership(sealed, index, form)
  const share = await openNode(walk, sealed, path, signal)
  try {
    checkShare(share, index, form)
    return share
  } catch (error) {
    share[Symbol.dispose]()
    throw error
  }
}

/** Waits for all the work, or only until enough of it is done. */
async function firstOf(work: Promise<unknown>, enough: AbortSignal): Promise<void> {
  if (enough.aborted) return
  const stopped = new Promise<void>((resolve) => {
    enough.addEventListener('abort', () => resolve(), { once: true })
  })
  await Promise.race([work, stopped])
}

/**
 * Gathers shares until they combine. Shares that could not be checked alone (clevis's) may be
 * wrong, so with each new one the combinations that include it are tried, within a bound.
 */
class ShareCollector implements Disposable {
  readonly #jwe: Jwe
  readonly #form: ThresholdForm
  readonly #shares: Secret[] = []
  #tries = mostCombinations
  secret: Secret | undefined

  constructor(jwe: Jwe, form: ThresholdForm) {
    this.#jwe = jwe
    this.#form = form
  }

  get count(): number {
    return this.#shares.length
  }

  /** True when the secret is open. */
  add(share: Secret): boolean {
    if (this.secret !== undefined) return true
    const others = subsets(this.#shares, this.#form.threshold - 1, this.#tries)
    this.#tries -= others.length
    const mine = share.clone()
    this.#shares.push(mine)
    for (const chosen of others) {
      this.secret = tryShares([...chosen, mine], this.#jwe, this.#form)
      if (this.secret !== undefined) return true
    }
    return false
  }

  [Symbol.dispose](): void {
    for (const share of this.#shares) share[Symbol.dispose]()
  }
}

/** Combinations that are tried before a threshold is given up. */
const mostCombinations = 500

/** The plaintext if these shares combine to its key; undefined when they do not. The caller owns it. */
export function tryShares(
  shares: readonly Secret[],
  jwe: Jwe,
  form: ThresholdForm,
): Secret | undefined {
  try {
    using key = combineShares(shares, form.prime)
    return decryptJwe(jwe, key)
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}

/** Subsets of the given size, in order, at most `most` of them. */
export function subsets<T>(items: readonly T[], size: number, most = mostCombinations): T[][] {
  if (size > items.length || most <= 0) return []
  if (size === 0) return [[]]
  const found: T[][] = []
  for (let index = 0; index + size <= items.length && found.length < most; index += 1) {
    const item = items.slice(index, index + 1)
    const rests = subsets(items.slice(index + 1), size - 1, most - found.length)
    for (const rest of rests) found.push([...item, ...rest])
  }
  return found
}

function notMet(
  form: ThresholdForm,
  opened: number,
  failures: readonly { name: string; fault: Fault }[],
): Fault {
  if (opened >= form.threshold) {
    const text = `${opened} shares opened, but they do not open the secret together`
    return sealFault('seal.share_wrong', `${text}: a share or the header was altered`, {
      hint: 'restore the sealed secret from a backup copy and open that',
    })
  }
  const reasons = failures.map(({ name, fault }) => `${name}: ${fault.message}`).join('; ')
  const need = `${form.threshold} of ${form.children.length} are needed`
  // People are not waited for once too many are missing: what they would have brought is not known.
  const all = opened + failures.length === form.children.length
  const count = all ? `${opened} opened` : 'too many did not open'
  return sealFault('seal.threshold_not_met', `${need}, ${count}: ${reasons}`, {
    hint: failures[0]?.fault.hint ?? 'run the same command again when more of them answer',
    details: {
      threshold: form.threshold,
      of: form.children.length,
      opened,
      failures: failures.map(({ name, fault }) => ({ name, ...fault.toJSON() })),
    },
  })
}
