import { createHash } from 'node:crypto'
import { messageOf } from '@holdfast/base'
import {
  type EcPrivateJwk,
  type ExchangeKey,
  exchangeKey,
  signAdvertisement,
  verifyAdvertisement,
} from '@holdfast/crypto'
import type { KeySet } from './directory.ts'
import { advertisedJwk, type StoredKey } from './key.ts'
import { selfTest } from './self-test.ts'
import type { KeyState } from './state.ts'
import { advertisementReply } from './wire.ts'

// What a server process answers from: an immutable picture of the key directory, replaced whole. All
// look-ups are by any of the five thumbprints and cost the same however many keys there are.

/** An exchange key that answers recoveries. */
export interface ServingKey {
  readonly stored: StoredKey
  readonly privateKey: EcPrivateJwk
  readonly exchange: ExchangeKey
}

/** The main set or one prefix. */
export interface Space {
  /** By thumbprint; `forbidden` for a key that exists but does not exchange. */
  readonly keys: ReadonlyMap<string, ServingKey | 'forbidden'>
  /**
   * The whole reply to GET /adv, or with a thumbprint to GET /adv/{thumbprint}: then signed by that
   * key too, be it current or rotated. Signed once and kept. Undefined when there is none.
   */
  advertisement(thumbprint?: string): Promise<string> | undefined
}

export interface Snapshot {
  readonly spaces: ReadonlyMap<string, Space>
  /** Exchange keys by prefix and thumbprint. */
  readonly serving: ReadonlyMap<string, ServingKey>
  /** The keys advertised, by prefix and thumbprint. */
  readonly advertised: ReadonlySet<string>
  /** Digest of the public side of everything served: equal on the members of a balanced set. */
  readonly fingerprint: string
  readonly counts: { advertised: number; hidden: number; prefixes: number; problems: number }
  /** False without a signing key; tangd then answers every recovery 500, and so do we. */
  readonly canSign: boolean
  /** False when the directory lacks a key to advertise, for example in the middle of a rotation. */
  readonly complete: boolean
  readonly hold: boolean
}

export type Warn = (details: Record<string, unknown>, message: string) => void

/**
 * Builds the picture to serve. Exchange keys already prepared for `previous` are taken over; those
 * no longer served must be given to `disposeDropped` once the new picture is in place.
 */
export function buildSnapshot(
  keySet: KeySet,
  state: KeyState,
  previous: Snapshot | undefined,
  warn: Warn,
): Snapshot {
  const serving = new Map<string, ServingKey>()
  const candidates = usableKeys(keySet, state, previous, warn)
  const keys = candidates.filter((key) => {
    const prepared = prepare(key, previous, warn)
    if (prepared !== undefined && prepared !== 'usable') serving.set(identity(key), prepared)
    return prepared !== undefined
  })
  const complete = isComplete(keys)
  const advertised = keys.filter(
    (key) =>
      key.privateKey !== undefined &&
      (!key.hidden || (!complete && previous?.advertised.has(identity(key)) === true)),
  )
  const spaces = new Map<string, Space>()
  for (const name of ['', ...keySet.prefixes]) {
    spaces.set(name, makeSpace(name, keys, advertised, serving))
  }
  return {
    spaces,
    serving,
    advertised: new Set(advertised.map(identity)),
    fingerprint: fingerprint(keys),
    counts: {
      advertised: keys.filter((key) => !key.hidden).length,
      hidden: keys.filter((key) => key.hidden).length,
      prefixes: keySet.prefixes.length,
      problems: keySet.problems.length + candidates.length - keys.length,
    },
    canSign: keys.some((key) => key.use === 'signing'),
    complete,
    hold: state.hold !== undefined,
  }
}

/** Wipes the exchange keys that `current` no longer serves. */
export function disposeDropped(previous: Snapshot | undefined, current?: Snapshot): void {
  for (const [name, key] of previous?.serving ?? []) {
    if (current?.serving.get(name)?.exchange !== key.exchange) key.exchange[Symbol.dispose]()
  }
}

function identity(key: StoredKey): string {
  return `${key.prefix}/${key.kid}`
}

function usableKeys(
  keySet: KeySet,
  state: KeyState,
  previous: Snapshot | undefined,
  warn: Warn,
): StoredKey[] {
  const loose = new Set(keySet.problems.filter((item) => item.loose).map((item) => item.file))
  for (const { file, reason } of keySet.problems) warn({ file, reason }, 'a key file has a problem')
  return keySet.keys.filter((key) => {
    if (state.destroyed[key.kid] !== undefined) {
      warn({ file: key.file }, 'a destroyed key came back and is not served')
      return false
    }
    // A key served before is not dropped for its mode alone: that would lock its clients out.
    return !loose.has(key.file) || previous?.serving.has(identity(key)) === true
  })
}

/** The key ready for use; `usable` when it needs no preparing; undefined when it is damaged. */
function prepare(
  key: StoredKey,
  previous: Snapshot | undefined,
  warn: Warn,
): ServingKey | 'usable' | undefined {
  const { privateKey } = key
  if (privateKey === undefined) return 'usable'
  const known = previous?.serving.get(identity(key))
  if (known !== undefined) return { ...known, stored: key }
  try {
    const exchange = exchangeKey(privateKey) // refuses a private key that is not the public one's
    if (key.use === 'signing') {
      exchange[Symbol.dispose]()
      return 'usable'
    }
    selfTest(exchange, privateKey)
    return { stored: key, privateKey, exchange }
  } catch (error) {
    warn({ file: key.file, reason: messageOf(error) }, 'a key cannot be used')
    return undefined
  }
}

function isComplete(keys: readonly StoredKey[]): boolean {
  const current = keys.filter((key) => !key.hidden && key.prefix === '' && key.privateKey)
  return ['signing', 'exchange'].every((use) => current.some((key) => key.use === use))
}

function makeSpace(
  name: string,
  keys: readonly StoredKey[],
  advertised: readonly StoredKey[],
  serving: ReadonlyMap<string, ServingKey>,
): Space {
  const byThumbprint = new Map<string, ServingKey | 'forbidden'>()
  const signing = keys.filter((key) => key.use === 'signing' && key.prefix === '')
  const exchange = keys.filter((key) => key.use === 'exchange' && key.prefix === name)
  for (const key of [...signing, ...exchange]) {
    const served = serving.get(identity(key)) ?? 'forbidden'
    for (const thumbprint of key.thumbprints) byThumbprint.set(thumbprint, served)
  }
  const shown = [...signing, ...exchange].filter((key) => advertised.includes(key))
  const signers = shown.filter((key) => key.use === 'signing')
  const replies = new Map<string, Promise<string>>()
  const reply = (extra: StoredKey[]): Promise<string> => {
    const name = extra[0]?.kid ?? ''
    const kept = replies.get(name) ?? sign(shown, [...signers, ...extra])
    replies.set(name, kept)
    return kept
  }
  return {
    keys: byThumbprint,
    advertisement: (thumbprint) => {
      if (signers.length === 0 || signers.length === shown.length) return undefined
      if (thumbprint === undefined) return reply([])
      const signer = signing.find((key) => key.thumbprints.includes(thumbprint))
      if (signer?.privateKey === undefined) return undefined
      return reply(signers.includes(signer) ? [] : [signer])
    },
  }
}

async function sign(shown: readonly StoredKey[], signers: readonly StoredKey[]): Promise<string> {
  const jws = await signAdvertisement(
    shown.map(advertisedJwk),
    signers.flatMap(({ privateKey }) => privateKey ?? []),
  )
  await verifyAdvertisement(jws) // a fault in this machine must not leave it as a signature
  return advertisementReply(jws)
}

function fingerprint(keys: readonly StoredKey[]): string {
  const lines = keys.map((key) => `${key.prefix}/${key.hidden ? '.' : ''}${key.use}/${key.kid}`)
  return createHash('sha256').update(lines.sort().join('\n')).digest('base64url')
}
