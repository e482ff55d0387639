import { Fault, isFault, messageOf, type Secret } from '@holdfast/base'
import { combineShares, decryptJwe, type Jwe } from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import { parseSealed, pinNameOf } from './header.ts'
import type { Pin, Pins } from './pin.ts'
import { untilOpen } from './retry.ts'
import {
  checkMembership,
  checkShare,
  readThreshold,
  shareName,
  type ThresholdForm,
} from './share-set.ts'

// Rules of this file: all children of a threshold start at once, so a local pin or a person never
// waits for the network; each has its own deadline; when t shares have come the rest are
// cancelled. A share that is wrong is named and dropped, and never spoils the others.

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
  /** Milliseconds one attempt of one pin may take; people are not timed. Default 10 000. */
  timeout?: number
  /** Ask network pins again for ever, with jittered back-off, until opened or aborted. */
  retry?: boolean
  signal?: AbortSignal
  onEvent?: (event: OpenEvent) => void
}

interface Walk {
  readonly pins: Pins
  readonly timeout: number
  readonly retry: boolean
  readonly onEvent: (event: OpenEvent) => void
}

/**
 * Opens a sealed secret. Nothing leaves before it has been authenticated.
 * @param sealed compact JWE, made here or by clevis
 * @throws Fault seal.threshold_not_met naming every pin that did not open and why, or the one
 *   pin's own fault
 */
export async function open(pins: Pins, sealed: string, options: OpenOptions = {}): Promise<Secret> {
  const { timeout = 10_000, retry = false, onEvent = () => undefined } = options
  const signal = options.signal ?? new AbortController().signal
  return await openNode({ pins, timeout, retry, onEvent }, parseSealed(sealed), [], signal)
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
  const attempt = () => (pin.interactive ? pin.open(jwe, signal) : timed(walk, pin, jwe, signal))
  try {
    const again = walk.retry && !pin.local
    const secret = again
      ? await untilOpen(attempt, signal, (fault, wait) => tell({ state: 'retrying', fault, wait }))
      : await attempt()
    tell({ state: 'opened' })
    return secret
  } catch (error) {
    if (signal.aborted) tell({ state: 'cancelled' })
    else tell({ state: 'failed', fault: asFault(error) })
    throw error
  }
}

async function timed(walk: Walk, pin: Pin, jwe: Jwe, signal: AbortSignal): Promise<Secret> {
  const deadline = AbortSignal.timeout(walk.timeout)
  try {
    return await pin.open(jwe, AbortSignal.any([signal, deadline]))
  } catch (error) {
    if (!deadline.aborted || signal.aborted) throw error
    const text = `${pin.name} ${pin.inspect(jwe).label} did not answer within ${walk.timeout} ms`
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
  const found = new ShareCollector(jwe, form)
  const failures: { name: string; fault: Fault }[] = []
  try {
    const tasks = form.children.map(async (child, index) => {
      try {
        using share = await openChild(walk, child, form, [...path, index], both)
        if (found.add(share)) rest.abort()
      } catch (error) {
        if (!both.aborted) failures.push({ name: shareName(form, index), fault: asFault(error) })
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
export async function openChild(
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
 * wrong, so with each new one the combinations that include it are tried.
 */
class ShareCollector implements Disposable {
  readonly #jwe: Jwe
  readonly #form: ThresholdForm
  readonly #shares: Secret[] = []
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
    const others = subsets(this.#shares, this.#form.threshold - 1)
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

const mostCombinations = 500

function tryShares(shares: readonly Secret[], jwe: Jwe, form: ThresholdForm): Secret | undefined {
  try {
    using key = combineShares(shares, form.prime)
    return decryptJwe(jwe, key)
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}

/** Subsets of the given size, in order, bounded in number. */
function subsets<T>(items: readonly T[], size: number): T[][] {
  if (size === 0) return [[]]
  const found: T[][] = []
  items.forEach((item, index) => {
    if (found.length >= mostCombinations) return
    for (const rest of subsets(items.slice(index + 1), size - 1)) found.push([item, ...rest])
  })
  return found.slice(0, mostCombinations)
}

function notMet(
  form: ThresholdForm,
  opened: number,
  failures: readonly { name: string; fault: Fault }[],
): Fault {
  const reasons = failures.map(({ name, fault }) => `${name}: ${fault.message}`).join('; ')
  const need = `${form.threshold} of ${form.children.length} are needed`
  return sealFault('seal.threshold_not_met', `${need}, ${opened} opened: ${reasons}`, {
    hint: failures[0]?.fault.hint ?? 'run the same command again when more of them answer',
    details: {
      threshold: form.threshold,
      of: form.children.length,
      opened,
      failures: failures.map(({ name, fault }) => ({ name, ...fault.toJSON() })),
    },
  })
}

/** Anything thrown, as a fault; what is not one is a defect and says so. */
export function asFault(error: unknown): Fault {
  if (error instanceof Fault) return error
  return new Fault('seal.internal', 'internal', messageOf(error), { cause: error })
}
