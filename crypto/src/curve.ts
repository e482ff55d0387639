import { cryptoFault } from './faults.ts'

// Arithmetic on public points only. BigInt takes time that depends on its operands, so nothing in
// this file may be given a private scalar of a long-lived key. The one secret that passes through
// is a client's own shared point (`subtractPoints` in exchange.ts), on the machine that owns it.

export const curveNames = ['P-256', 'P-384', 'P-521'] as const
export type CurveName = (typeof curveNames)[number]

/** An affine point. The point at infinity is not representable and is an error everywhere. */
export interface Point {
  readonly x: bigint
  readonly y: bigint
}

/** A point as it travels: two coordinates of the field's width, big-endian. */
export interface EncodedPoint {
  readonly x: Uint8Array
  readonly y: Uint8Array
}

/** y^2 = x^3 - 3x + b over the field of `p` elements, of prime order `n` (SEC 2 version 2, FIPS 186-4). */
export interface Curve {
  readonly name: CurveName
  /** Field width in bytes: the fixed length of an encoded coordinate. */
  readonly size: number
  readonly p: bigint
  readonly b: bigint
  readonly n: bigint
  /** OpenSSL's name. */
  readonly openssl: string
}

const p256: Curve = {
  name: 'P-256',
  size: 32,
  p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
  b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
  n: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  openssl: 'prime256v1',
}

const p384: Curve = {
  name: 'P-384',
  size: 48,
  p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
  b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn,
  n: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  openssl: 'secp384r1',
}

const p521: Curve = {
  name: 'P-521',
  size: 66,
  p: 2n ** 521n - 1n,
  b: 0x0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00n,
  n: 2n ** 521n - 0x5ae79787c40d069948033feb708f65a2fc44a36477663b851449048e16ec79bf7n,
  openssl: 'secp521r1',
}

/** The generator of P-521 (FIPS 186-4, D.1.2.5). */
export const p521Base: Point = {
  x: 0x00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66n,
  y: 0x011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650n,
}

const curves: Readonly<Record<CurveName, Curve>> = { 'P-256': p256, 'P-384': p384, 'P-521': p521 }

/** True for one of the three curve names (RFC 7518 6.2.1.1). */
export function isCurveName(value: unknown): value is CurveName {
  return typeof value === 'string' && Object.hasOwn(curves, value)
}

/** The curve's parameters. */
export function curveOf(name: CurveName): Curve {
  return curves[name]
}

/** The remainder in [0, modulus). */
export function modulo(value: bigint, modulus: bigint): bigint {
  const remainder = value % modulus
  return remainder < 0n ? remainder + modulus : remainder
}

/**
 * The inverse modulo a prime; of public values. Lehmer's form of the extended Euclidean algorithm:
 * most quotients are found from the leading bits in plain numbers, and long division is rare, which
 * makes it three times as fast as the plain form.
 */
export function invert(value: bigint, modulus: bigint): bigint {
  let [r0, r1] = [modulus, modulo(value, modulus)]
  let [t0, t1] = [0n, 1n]
  while (r1 !== 0n) {
    const [a, b, c, d] = leadingQuotients(r0, r1) ?? oneQuotient(r0, r1)
    ;[r0, r1] = [a * r0 + b * r1, c * r0 + d * r1]
    ;[t0, t1] = [a * t0 + b * t1, c * t0 + d * t1]
  }
  if (r0 !== 1n) throw cryptoFault('crypto.point_invalid', 'zero has no inverse')
  return modulo(t0, modulus)
}

/** What some steps of Euclid's algorithm do to both remainders: the rows of a matrix. */
type Steps = readonly [bigint, bigint, bigint, bigint]

function oneQuotient(r0: bigint, r1: bigint): Steps {
  return [0n, 1n, 1n, -(r0 / r1)]
}

/**
 * The steps that the leading 48 bits of both remainders prove to be right whatever bits follow
 * (Knuth, The Art of Computer Programming, 4.5.2, algorithm L); undefined when that is none. All
 * numbers stay below 2^53, where a rounded quotient of integers has the right integer part.
 */
function leadingQuotients(r0: bigint, r1: bigint): Steps | undefined {
  const excess = r0.toString(16).length * 4 - 48
  if (excess <= 0) return undefined
  let high = Number(r0 >> BigInt(excess))
  let low = Number(r1 >> BigInt(excess))
  let [a, b, c, d] = [1, 0, 0, 1]
  while (low + c !== 0 && low + d !== 0) {
    const quotient = Math.floor((high + a) / (low + c))
    if (quotient !== Math.floor((high + b) / (low + d))) break
    const [nextC, nextD] = [a - quotient * c, b - quotient * d]
    if (Math.abs(nextC) > 2 ** 25 || Math.abs(nextD) > 2 ** 25) break
    ;[a, b, c, d] = [c, d, nextC, nextD]
    ;[high, low] = [low, high - quotient * low]
  }
  return b === 0 ? undefined : [BigInt(a), BigInt(b), BigInt(c), BigInt(d)]
}

/** True for a point on the curve, false for coordinates outside its field. */
export function isOnCurve({ x, y }: Point, { p, b }: Curve): boolean {
  if (x < 0n || y < 0n || x >= p || y >= p) return false
  return modulo(y * y - (x * x - 3n) * x - b, p) === 0n
}

/** The sum of two different points that are not each other's negative. */
export function addPoints(a: Point, b: Point, { p }: Curve): Point {
  if (a.x === b.x) {
    throw cryptoFault('crypto.point_invalid', 'the points to add are equal or opposite')
  }
  const slope = modulo((b.y - a.y) * invert(b.x - a.x, p), p)
  const x = modulo(slope * slope - a.x - b.x, p)
  return { x, y: modulo(slope * (a.x - x) - a.y, p) }
}

/** The point with which the given one adds up to infinity. */
export function negate({ x, y }: Point, { p }: Curve): Point {
  return { x, y: modulo(-y, p) }
}

/**
 * Recovers y of Q = s*P from x of Q and x of T = Q + P, for a curve with a = -3: one inversion of
 * the public 2*yP and no square root.
 */
export function recoverY(point: Point, xQ: bigint, xT: bigint, { p, b }: Curve): bigint {
  const distance = xQ - point.x
  const square = xQ * xQ * xQ - 3n * xQ + b
  const numerator =
    square + point.y * point.y - modulo(xT + xQ + point.x, p) * modulo(distance * distance, p)
  return modulo(numerator * invert(2n * point.y, p), p)
}

/** Big-endian bytes to a number. */
export function toNumber(bytes: Uint8Array): bigint {
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
  return hex === '' ? 0n : BigInt(`0x${hex}`)
}

/** A number to big-endian bytes of exactly `size`. */
export function toBytes(value: bigint, size: number): Buffer {
  return Buffer.from(value.toString(16).padStart(size * 2, '0'), 'hex')
}

/** A point's coordinates at the field's full width. */
export function encodePoint({ x, y }: Point, { size }: Curve): EncodedPoint {
  return { x: toBytes(x, size), y: toBytes(y, size) }
}

/** The numbers of an encoded point; that it is on the curve is for the caller to check. */
export function decodePoint({ x, y }: EncodedPoint): Point {
  return { x: toNumber(x), y: toNumber(y) }
}
