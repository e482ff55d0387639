import { isObject, type JsonObject } from '@holdfast/base'
import { type Jwe, parseJwe } from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import type { SealedUse, SealOptions } from './pin.ts'

/** The pin name in a sealed secret's protected header. @throws Fault seal.sealed_malformed */
export function pinNameOf(jwe: Jwe): string {
  const { clevis } = jwe.header
  const pin = isObject(clevis) ? clevis.pin : undefined
  if (typeof pin !== 'string') throw malformed('its header names no clevis pin')
  return pin
}

/** The object that a pin stored under its own name. @throws Fault seal.sealed_malformed */
export function pinHeader(jwe: Jwe, name: string): JsonObject {
  const { clevis } = jwe.header
  const own = isObject(clevis) ? clevis[name] : undefined
  if (!isObject(own)) throw malformed(`its header has no "${name}" member`)
  return own
}

/** Parses a sealed secret and checks that it names a pin. */
export function parseSealed(text: string): Jwe {
  const jwe = parseJwe(text)
  pinNameOf(jwe)
  return jwe
}

/** A member that must be text. @throws Fault seal.sealed_malformed naming it */
export function stringMember(source: JsonObject, name: string, what: string): string {
  const value = source[name]
  if (typeof value !== 'string') throw malformed(`${what} lacks "${name}"`)
  return value
}

/** Text from outside as one line that can do nothing to a terminal. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd').slice(0, 200)
}

/** The fault for a sealed form that cannot be used. */
export function malformed(reason: string): Error {
  return sealFault('seal.sealed_malformed', `the sealed secret cannot be used: ${reason}`)
}

/** The extra protected-header member: of a share, of a secret with a stated use, or nothing. */
export function holdfastMember({ membership, use }: SealOptions): JsonObject {
  if (membership === undefined && use === undefined) return {}
  const share = membership === undefined ? {} : { share: membership }
  return { holdfast: { ...share, ...(use === undefined ? {} : { use: { ...use } }) } }
}

/** What a sealed secret, or one share of it, says it is for. @throws Fault seal.sealed_malformed */
export function readUse(jwe: Jwe): SealedUse | undefined {
  const { holdfast } = jwe.header
  const use = isObject(holdfast) ? holdfast.use : undefined
  if (use === undefined) return undefined
  const { purpose, of } = isObject(use) ? use : {}
  const known = purpose === 'vault' || purpose === 'coordinator' || purpose === 'proof'
  if (known && typeof of === 'string') return { purpose, of }
  throw malformed('what it is for cannot be read')
}
