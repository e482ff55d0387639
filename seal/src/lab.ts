import { type JsonObject, Secret } from '@holdfast/base'
import { encryptJwe, parseJwe } from '@holdfast/crypto'
import { open } from './open.ts'
import type { Pins } from './pin.ts'
import { createPins } from './pins.ts'
import { type Policy, parsePolicy, threshold } from './policy.ts'
import { type SealRequest, seal } from './seal.ts'

// What the tests of this part share: short ways to seal, open and tamper.

export const labPins = createPins()
export const nul: Policy = parsePolicy('null', {})
export const failing: Policy = parsePolicy('null', { fail: true })

/** `t` of `n` pins that need nothing. */
export function nulls(t: number, n: number): Policy {
  return threshold(
    t,
    Array.from({ length: n }, () => nul),
  )
}

export async function sealText(
  policy: Policy,
  text = 'hi',
  request: SealRequest = {},
  pins: Pins = labPins,
): Promise<string> {
  using plaintext = Secret.copy(text)
  return await seal(pins, policy, plaintext, request)
}

export async function openText(sealed: string, pins: Pins = labPins): Promise<string> {
  using plaintext = await open(pins, sealed)
  return plaintext.reveal().toString()
}

/**
 * The same threshold with its protected header changed. Its own tag no longer verifies, as when
 * somebody edits a disk: what must be found out is found out before that.
 */
export function withHeader(sealed: string, change: (header: JsonObject) => JsonObject): string {
  const [, ...rest] = sealed.split('.')
  const { header } = parseJwe(sealed)
  const text = JSON.stringify(change(structuredClone(header)))
  return [Buffer.from(text).toString('base64url'), ...rest].join('.')
}

interface ThresholdHeader {
  clevis: { sss: { jwe: string[]; t: number; p: string } }
  holdfast?: { shares: JsonObject }
}

/** The children of a threshold, to be mixed. */
export function childrenOf(sealed: string): string[] {
  const header = parseJwe(sealed).header as unknown as ThresholdHeader // ours, just made
  return header.clevis.sss.jwe
}

/** The same threshold with other children. */
export function withChildren(sealed: string, children: readonly string[]): string {
  return withHeader(sealed, (header) => {
    const own = header as unknown as ThresholdHeader // ours, just made
    own.clevis.sss.jwe = [...children]
    return header
  })
}

/** A sealed form of the null pin around any bytes and with any further header members. */
export async function nullForm(bytes: Uint8Array | string, more: JsonObject = {}): Promise<string> {
  using key = Secret.random(32)
  using plaintext = Secret.copy(bytes)
  const jwk = { alg: 'A256GCM', k: key.reveal().toString('base64url'), kty: 'oct' }
  const header = { alg: 'dir', clevis: { null: { jwk }, pin: 'null' }, ...more }
  return await encryptJwe(header, key, plaintext)
}
