import { createHash } from 'node:crypto'
import { canonicalJson, fromBase64url, isObject, toBase64url } from '@holdfast/base'
import {
  type Curve,
  type CurveName,
  curveOf,
  decodePoint,
  type EncodedPoint,
  isCurveName,
  isOnCurve,
  type Point,
  toBytes,
} from './curve.ts'
import { cryptoFault } from './faults.ts'
import { isOnP521 } from './p521.ts'

/** A public elliptic-curve key (RFC 7517, RFC 7518 6.2.1); coordinates are base64url, full width. */
export interface EcPublicJwk {
  kty: 'EC'
  crv: CurveName
  x: string
  y: string
  alg?: string
  kid?: string
  key_ops?: string[]
}

/** A private elliptic-curve key; `d` is base64url, full width. Handle as a secret. */
export interface EcPrivateJwk extends EcPublicJwk {
  d: string
}

/** Any JSON Web Key, as far as thumbprints need to know it. */
export interface AnyJwk {
  kty: string
  [member: string]: unknown
}

/** Hash names as tang and clevis spell them. */
export const thumbprintHashes = ['S1', 'S224', 'S256', 'S384', 'S512'] as const
export type ThumbprintHash = (typeof thumbprintHashes)[number]

const opensslHash: Readonly<Record<ThumbprintHash, string>> = {
  S1: 'sha1',
  S224: 'sha224',
  S256: 'sha256',
  S384: 'sha384',
  S512: 'sha512',
}

/** Members that identify a key, by type (RFC 7638 section 3.2, RFC 8037 section 2). */
const required: Readonly<Record<string, readonly string[]>> = {
  EC: ['crv', 'kty', 'x', 'y'],
  RSA: ['e', 'kty', 'n'],
  OKP: ['crv', 'kty', 'x'],
  oct: ['k', 'kty'],
}

/** The base64url thumbprint of a key (RFC 7638), by default with SHA-256. */
export function thumbprint(jwk: AnyJwk | EcPublicJwk, hash: ThumbprintHash = 'S256'): string {
  const names = Object.hasOwn(required, jwk.kty) ? required[jwk.kty] : undefined
  if (names === undefined) throw malformed('a key has an unknown type')
  const members = jwk as AnyJwk
  const identity = Object.fromEntries(names.map((name) => [name, members[name]]))
  if (names.some((name) => typeof identity[name] !== 'string')) {
    throw malformed(`a ${jwk.kty} key lacks one of ${names.join(', ')}`)
  }
  return createHash(opensslHash[hash]).update(canonicalJson(identity)).digest('base64url')
}

/** All five thumbprints a key may be asked for by. */
export function thumbprints(jwk: AnyJwk | EcPublicJwk): string[] {
  return thumbprintHashes.map((hash) => thumbprint(jwk, hash))
}

/**
 * Decodes a public point strictly: coordinates at most field width, below p, on the curve. Shorter
 * coordinates are left-padded, as tang's peers send them.
 * @throws Fault crypto.jwk_malformed, crypto.point_invalid
 */
export function pointOf(jwk: EcPublicJwk): Point {
  const curve = curveOf(jwk.crv)
  const point = decodePoint(coordinates(jwk, curve))
  if (!isOnCurve(point, curve)) throw notOnCurve(curve)
  return point
}

/** The same without numbers where they can be done without: what a key server does all day. */
export function encodedPointOf(jwk: EcPublicJwk): EncodedPoint {
  const curve = curveOf(jwk.crv)
  const point = coordinates(jwk, curve)
  const { x, y } = point
  const valid = curve.name === 'P-521' ? isOnP521(x, y) : isOnCurve(decodePoint(point), curve)
  if (!valid) throw notOnCurve(curve)
  return point
}

function notOnCurve(curve: Curve): Error {
  return cryptoFault('crypto.point_invalid', `the point is not on ${curve.name}`)
}

function coordinates(jwk: EcPublicJwk, curve: Curve): EncodedPoint {
  return { x: coordinate(jwk.x, 'x', curve), y: coordinate(jwk.y, 'y', curve) }
}

function coordinate(text: string, name: string, { name: crv, size }: Curve): Buffer {
  let bytes: Buffer
  try {
    bytes = fromBase64url(text)
  } catch {
    throw malformed(`coordinate ${name} is not base64url`)
  }
  if (bytes.length === size) return bytes
  if (bytes.length === 0 || bytes.length > size) {
    throw malformed(`coordinate ${name} is not of ${crv}'s width`)
  }
  return Buffer.concat([Buffer.alloc(size - bytes.length), bytes])
}

/** The public key of a point, coordinates at full width. */
export function jwkOf(point: Point, crv: CurveName): EcPublicJwk {
  const { size } = curveOf(crv)
  return {
    kty: 'EC',
    crv,
    x: toBase64url(toBytes(point.x, size)),
    y: toBase64url(toBytes(point.y, size)),
  }
}

/** Reads an elliptic-curve public key from outside and checks its point. Unknown members are kept out. */
export function parseEcPublicJwk(value: unknown, what: string): EcPublicJwk {
  if (!isObject(value) || value.kty !== 'EC') throw malformed(`${what} is not an EC key`)
  const { crv, x, y, alg, key_ops } = value
  if (!isCurveName(crv)) throw malformed(`${what} is on an unknown curve`)
  if (typeof x !== 'string' || typeof y !== 'string') throw malformed(`${what} lacks x or y`)
  const jwk: EcPublicJwk = { kty: 'EC', crv, x, y }
  if (typeof alg === 'string') jwk.alg = alg
  if (Array.isArray(key_ops)) jwk.key_ops = key_ops.filter((name) => typeof name === 'string')
  pointOf(jwk)
  return jwk
}

/** Public members only, without `alg` and `key_ops`. */
export function bareJwk(jwk: EcPublicJwk): EcPublicJwk {
  return { kty: 'EC', crv: jwk.crv, x: jwk.x, y: jwk.y }
}

function malformed(text: string): Error {
  return cryptoFault('crypto.jwk_malformed', text)
}
