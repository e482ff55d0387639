import {
  createECDH,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { fromBase64url, Secret, toBase64url } from '@holdfast/base'
import {
  addPoints,
  type Curve,
  type CurveName,
  curveOf,
  decodePoint,
  type EncodedPoint,
  encodePoint,
  isOnCurve,
  negate,
  type Point,
  p521Base,
  recoverY,
  toBytes,
  toNumber,
} from './curve.ts'
import { cryptoFault } from './faults.ts'
import { type EcPrivateJwk, type EcPublicJwk, jwkOf, pointOf } from './jwk.ts'
import { p521Multiplier } from './p521.ts'

// The McCallum-Relyea exchange. With server key S = s*G and the client's stored C = c*G:
//   provision: K = c*S = s*C; the JWE key comes from x(K); c and K are forgotten.
//   recover:   fresh e; the client sends X = C + e*G; the server answers Y = s*X;
//              K = Y - e*S. The server learns only the random-looking X.
// The server's scalar is only ever given to OpenSSL or to the constant-time WebAssembly core.

/** A private scalar that multiplies points in time that does not depend on it. */
export interface ExchangeKey extends Disposable {
  readonly curve: Curve
  /** s * point. The point must be on the curve. @throws Fault crypto.point_invalid */
  multiply(point: Point): Point
  /** The same on points as they travel. @throws Fault crypto.point_invalid */
  multiplyEncoded(point: EncodedPoint): EncodedPoint
}

/** Prepares a private key for repeated exchanges. @throws Fault crypto.jwk_malformed */
export function exchangeKey(jwk: EcPrivateJwk): ExchangeKey {
  const curve = curveOf(jwk.crv)
  using scalar = Secret.take(scalarBytes(jwk.d))
  if (scalar.length !== curve.size) {
    throw cryptoFault('crypto.jwk_malformed', `the private key is not of ${curve.name}'s width`)
  }
  const point = publicPoint(curve, scalar.reveal())
  const stated = pointOf(jwk)
  if (point.x !== stated.x || point.y !== stated.y) {
    throw cryptoFault('crypto.jwk_malformed', 'the private key does not belong to its public key')
  }
  return prepared(curve, scalar, point)
}

/**
 * A fresh key for one recovery, with its public point. On P-521 the core makes the point, too: it is
 * needed for the exchange anyway, and OpenSSL in Node takes six times as long.
 */
function ephemeralKey(curve: Curve): { key: ExchangeKey; point: Point } {
  if (curve.name !== 'P-521') {
    const jwk = generateEcKey(curve.name)
    using scalar = Secret.take(scalarBytes(jwk.d))
    const point = pointOf(jwk)
    return { key: prepared(curve, scalar, point), point }
  }
  using scalar = Secret.take(randomBytes(curve.size))
  const bytes = scalar.reveal()
  bytes[0] = (bytes[0] ?? 0) & 1 // 521 bits; the few numbers from n on are refused, nobody draws one
  const key = wasmKey(curve, scalar)
  return { key, point: key.multiply(p521Base) }
}

function prepared(curve: Curve, scalar: Secret, point: Point): ExchangeKey {
  return curve.name === 'P-521' ? wasmKey(curve, scalar) : opensslKey(curve, scalar, point)
}

function scalarBytes(text: string): Buffer {
  try {
    return fromBase64url(text)
  } catch {
    throw cryptoFault('crypto.jwk_malformed', 'the private key is not base64url')
  }
}

function checked(point: Point, curve: Curve): Point {
  if (!isOnCurve(point, curve)) {
    throw cryptoFault('crypto.point_invalid', `a computed point is not on ${curve.name}`, {
      hint: 'the processor or memory may be faulty: do not use this reply',
    })
  }
  return point
}

function wasmKey(curve: Curve, scalar: Secret): ExchangeKey {
  const multiplier = p521Multiplier(scalar.reveal())
  const multiplyEncoded = ({ x, y }: EncodedPoint) => multiplier.multiply(x, y)
  return {
    curve,
    multiplyEncoded,
    // Checked by the core, and here once more by arithmetic that shares nothing with it.
    multiply: (point) => checked(decodePoint(multiplyEncoded(encodePoint(point, curve))), curve),
    [Symbol.dispose]: () => multiplier.dispose(),
  }
}

/**
 * Two x-only OpenSSL exchanges, with s and s + 1, and the public identity that recovers y from
 * them. The one scalar without a follower, n - 1, is refused: nobody draws it.
 */
function opensslKey(curve: Curve, scalar: Secret, point: Point): ExchangeKey {
  const own = privateKey(curve, scalar, point)
  using next = Secret.take(plusOne(scalar.reveal()))
  const following = privateKey(curve, next, publicPoint(curve, next.reveal()))
  const importPoint = pointImporter(own, curve)
  const multiplyEncoded = (point: EncodedPoint): EncodedPoint => {
    const publicKey = importPoint(point)
    using a = Secret.take(diffieHellman({ privateKey: own, publicKey }))
    using b = Secret.take(diffieHellman({ privateKey: following, publicKey }))
    const x = toNumber(a.reveal())
    const y = recoverY(decodePoint(point), x, toNumber(b.reveal()), curve)
    return encodePoint(checked({ x, y }, curve), curve)
  }
  return {
    curve,
    multiplyEncoded,
    multiply: (point) => decodePoint(multiplyEncoded(encodePoint(point, curve))),
    [Symbol.dispose]: () => undefined,
  }
}

/** s + 1 for a big-endian s below the curve order; every byte is touched whatever the carry. */
function plusOne(scalar: Uint8Array): Buffer {
  const next = Buffer.alloc(scalar.length)
  let carry = 1
  for (let index = scalar.length - 1; index >= 0; index -= 1) {
    const sum = (scalar[index] ?? 0) + carry
    next[index] = sum & 0xff
    carry = sum >>> 8
  }
  return next
}

/** scalar * G, computed by OpenSSL, which refuses a scalar outside [1, n-1]. */
function publicPoint(curve: Curve, scalar: Uint8Array): Point {
  const ecdh = createECDH(curve.openssl)
  try {
    ecdh.setPrivateKey(scalar)
  } catch {
    throw cryptoFault('crypto.jwk_malformed', `the private key is out of ${curve.name}'s range`)
  }
  const encoded = ecdh.getPublicKey() // 0x04, x, y
  return {
    x: toNumber(encoded.subarray(1, 1 + curve.size)),
    y: toNumber(encoded.subarray(1 + curve.size)),
  }
}

function privateKey(curve: Curve, scalar: Secret, point: Point): KeyObject {
  const key = { ...jwkOf(point, curve.name), d: toBase64url(scalar.reveal()) }
  return createPrivateKey({ key: { ...key }, format: 'jwk' })
}

/**
 * Imports points as PEM text: for anything but a string Node throws and catches up to four errors
 * inside `createPublicKey` before it looks at the key, which costs more than the import.
 */
function pointImporter(key: KeyObject, curve: Curve): (point: EncodedPoint) => KeyObject {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const head = spki.subarray(0, spki.length - 2 * curve.size) // ends with 0x04: uncompressed
  return ({ x, y }) => {
    const der = Buffer.concat([head, x, y])
    return createPublicKey(
      `-----BEGIN PUBLIC KEY-----\n${der.toString('base64')}\n-----END PUBLIC KEY-----\n`,
    )
  }
}

/** A new private key of the curve, coordinates and scalar at full width. */
export function generateEcKey(crv: CurveName): EcPrivateJwk {
  const pair = generateKeyPairSync('ec', { namedCurve: curveOf(crv).openssl })
  const { x, y, d } = pair.privateKey.export({ format: 'jwk' })
  if (x === undefined || y === undefined || d === undefined) {
    throw cryptoFault('crypto.self_test_failed', 'OpenSSL exported an incomplete key')
  }
  return { kty: 'EC', crv, x, y, d }
}

/** A recovery under way: what is sent to the server, and how its answer is used. */
export interface Blinded {
  /** X = C + e*G, with `alg` as clevis sends it. */
  readonly request: EcPublicJwk
  /**
   * The shared secret Z = x(K), field width, big-endian, from the server's reply Y.
   * @throws Fault crypto.point_invalid when the reply is on another curve or off the curve
   */
  unblind(reply: EcPublicJwk): Secret
}

/**
 * Starts a recovery of the secret shared between a sealed secret's `epk` and the server's
 * exchange key. The ephemeral scalar is fresh at every call and lives in the returned object alone.
 */
export function blind(epk: EcPublicJwk, serverKey: EcPublicJwk): Blinded {
  const curve = curveOf(epk.crv)
  if (serverKey.crv !== epk.crv) {
    throw cryptoFault('crypto.point_invalid', 'epk and exchange key are on different curves')
  }
  const ephemeral = ephemeralKey(curve)
  const request = addPoints(pointOf(epk), ephemeral.point, curve)
  return {
    request: { alg: 'ECMR', ...jwkOf(request, curve.name) },
    unblind: (reply) => {
      if (reply.crv !== curve.name) {
        throw cryptoFault('crypto.point_invalid', `the reply is on ${reply.crv}, not ${curve.name}`)
      }
      const answer = pointOf(reply)
      const mask = ephemeral.key.multiply(pointOf(serverKey))
      return Secret.take(toBytes(addPoints(answer, negate(mask, curve), curve).x, curve.size))
    },
  }
}
