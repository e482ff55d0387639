import { type Fault, isFault, type Secret } from '@holdfast/base'
import { type OpenEvent, open } from '@holdfast/seal'
import { testPassphrase } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { bindingsOf, type Inventory, type Slot } from './inventory.ts'
import type { Vault } from './state.ts'
import type { Purpose } from './token.ts'

// Finding a way in. All bindings start at once; the first whose passphrase really opens its keyslot
// wins and the others are cancelled, so that a dead server delays nothing.

export interface WayOptions {
  /** Milliseconds for each pin's attempt. Default 10 000. */
  timeout?: number
  /** Ask key servers again for ever, with jittered back-off. */
  retry?: boolean
  signal?: AbortSignal
  /** Only this keyslot. */
  keyslot?: number
  /** Which bindings to try. Default automatic ones; recovery asks people. */
  purposes?: readonly Purpose[]
  onEvent?: (event: WayEvent) => void
  /**
   * A passphrase from elsewhere, such as a console prompt, that is waited for at the same time;
   * undefined gives up on it. It must stop at the signal.
   */
  passphrase?: (signal: AbortSignal) => Promise<Secret | undefined>
}

/** A pin's event together with the keyslot it happened for. */
export interface WayEvent extends OpenEvent {
  keyslot: number
}

/** A way in that opened: the caller owns the passphrase. */
export interface OpenWay {
  /** The binding's keyslot; undefined when a given passphrase opened one that was not named. */
  keyslot: number | undefined
  passphrase: Secret
  by: 'binding' | 'passphrase'
}

/**
 * Opens the volume by whichever way answers first.
 * @throws Fault vault.no_way_in naming each way and why it did not open
 */
export async function openAnyWay(
  vault: Vault,
  inventory: Inventory,
  options: WayOptions = {},
): Promise<OpenWay> {
  const { keyslot, purposes = ['automatic'] } = options
  const bindings = bindingsOf(inventory, purposes).filter(
    (slot) => keyslot === undefined || slot.keyslot === keyslot,
  )
  const rest = new AbortController()
  const outer = options.signal ?? new AbortController().signal
  const signal = AbortSignal.any([outer, rest.signal])
  const failures: { keyslot: number | undefined; fault: unknown }[] = []
  const attempt = async (named: number | undefined, way: () => Promise<OpenWay>) => {
    try {
      return await way()
    } catch (error) {
      failures.push({ keyslot: named, fault: error })
      throw error
    }
  }
  const attempts = bindings.map((slot) =>
    attempt(slot.keyslot, () => openBinding(vault, slot, { ...options, signal })),
  )
  const { passphrase } = options
  if (passphrase !== undefined) {
    attempts.push(attempt(undefined, () => openTyped(vault, passphrase, keyslot, signal)))
  }
  if (attempts.length === 0) throw nothingBound(vault, inventory, keyslot)
  try {
    const won = await Promise.any(attempts)
    rest.abort()
    await discardOthers(attempts, won)
    return won
  } catch {
    outer.throwIfAborted()
    throw noWayIn(vault, failures)
  }
}

/** Opens one binding and proves the passphrase at its own keyslot. The caller owns the passphrase. */
export async function openBinding(
  vault: Vault,
  slot: Slot & { jwe: string },
  options: WayOptions = {},
): Promise<OpenWay> {
  const { timeout, retry, signal, onEvent } = options
  const passphrase = await open(vault.pins, slot.jwe, {
    ...(timeout === undefined ? {} : { timeout }),
    ...(retry === undefined ? {} : { retry }),
    ...(signal === undefined ? {} : { signal }),
    ...(onEvent === undefined
      ? {}
      : { onEvent: (event) => onEvent({ ...event, keyslot: slot.keyslot }) }),
  })
  if (await testPassphrase(vault.volume, passphrase, slot.keyslot)) {
    return { keyslot: slot.keyslot, passphrase, by: 'binding' }
  }
  passphrase[Symbol.dispose]()
  throw vaultFault(
    'vault.binding_stale',
    `keyslot ${slot.keyslot}'s sealed passphrase opens, but not this keyslot`,
    {
      hint: 'the keyslot was changed without its token, as an interrupted clevis regen leaves it: unbind it and bind again',
    },
  )
}

async function openTyped(
  vault: Vault,
  ask: NonNullable<WayOptions['passphrase']>,
  keyslot: number | undefined,
  signal: AbortSignal,
): Promise<OpenWay> {
  const passphrase = await ask(signal)
  if (passphrase !== undefined && (await testPassphrase(vault.volume, passphrase, keyslot))) {
    return { keyslot, passphrase, by: 'passphrase' }
  }
  passphrase?.[Symbol.dispose]()
  throw vaultFault(
    'vault.passphrase_wrong',
    passphrase === undefined
      ? 'no passphrase was given'
      : `no keyslot of ${vault.volume.device} opens with this passphrase`,
  )
}

/** Ways that opened too late still hold a passphrase. */
async function discardOthers(attempts: readonly Promise<OpenWay>[], won: OpenWay): Promise<void> {
  for (const attempt of attempts) {
    void attempt.then(
      (way) => {
        if (way !== won) way.passphrase[Symbol.dispose]()
      },
      () => undefined,
    )
  }
}

function nothingBound(vault: Vault, inventory: Inventory, keyslot: number | undefined): Error {
  const exists = inventory.slots.some((slot) => slot.keyslot === keyslot)
  if (keyslot !== undefined && !exists) {
    return vaultFault('vault.slot_absent', `keyslot ${keyslot} is not in use`, {
      hint: 'see which are: holdfast vault list',
    })
  }
  const what = keyslot === undefined ? vault.volume.device : `keyslot ${keyslot}`
  return vaultFault('vault.slot_unbound', `${what} has no binding that could be opened`, {
    hint: 'give a passphrase, or bind it first: holdfast vault bind',
  })
}

function noWayIn(
  vault: Vault,
  failures: readonly { keyslot: number | undefined; fault: unknown }[],
): Fault {
  const faults = failures.filter(
    (failure): failure is { keyslot: number | undefined; fault: Fault } => isFault(failure.fault),
  )
  const [first] = failures
  if (first !== undefined && faults.length === 0 && !isFault(first.fault)) throw first.fault
  const [only] = faults
  // One way's own fault says it best; it is the usual case.
  if (only !== undefined && failures.length === 1 && only.fault.code !== 'seal.threshold_not_met') {
    return only.fault
  }
  const reasons = faults.map(({ keyslot, fault }) => `${nameOf(keyslot)}: ${fault.message}`)
  return vaultFault(
    'vault.no_way_in',
    `nothing opens ${vault.volume.device} now: ${reasons.join('; ')}`,
    {
      hint: only?.fault.hint ?? 'bring a key server back, ask the holders, or use the passphrase',
      details: {
        ways: faults.map(({ keyslot, fault }) => ({ keyslot, fault: fault.toJSON() })),
      },
    },
  )
}

function nameOf(keyslot: number | undefined): string {
  return keyslot === undefined ? 'passphrase' : `keyslot ${keyslot}`
}
