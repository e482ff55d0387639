/**
 * Scalar multiplication on NIST P-521 for a secret scalar and a public point, in AssemblyScript.
 *
 * What is always true here:
 * - Which instructions run and which addresses are touched never depends on the scalar: it is cut
 *   into 104 windows at fixed places, every window costs five doublings, one full scan of the table
 *   and one addition, and the sign of a window and of the scalar itself is applied with masks.
 * - No step meets the point at infinity or adds equal points, whatever the scalar in [1, n-1]: the
 *   scalar is made odd (d or n - d), so each prefix of it is odd and positive (Joye and Tunstall,
 *   "Exponent recoding and regular exponentiation algorithms", AFRICACRYPT 2009). Only the last
 *   addition could wrap around n; for it to be a doubling the digit would have to be -41, below -31.
 * - The caller writes inputs to, and reads results from, the exported addresses; one call at a time.
 */

import { bitsAt, decode, encode, isReduced, isZero, negateIf, NUMBER, setSmall } from './element'
import { mul, sqr, sqrTwice, subCarry } from './field'
import { A, addPicked, B, beginAtPoint, C, D, double, pick, QX, QY, toAffine, wipeWork } from './point'

// For tests of the field arithmetic by itself.
export { mul, sqr, sqrTwice }

const WINDOW_BITS = 5
const WINDOWS = 104

/** Coordinates and scalar, each a number as ./element reads it. */
export const x: usize = memory.data(72, 16)
export const y: usize = memory.data(72, 16)
export const scalar: usize = memory.data(72, 16)
/** A prepared scalar: 104 windows, lowest first, and a byte that is 1 when the result is negated. */
export const windows: usize = memory.data(105, 16)

/** Room for three elements that tests may use. */
export const scratch: usize = memory.data(240, 16)

/** The group order n, big-endian words (SEC 2 version 2.0, section 2.6.1). */
const ORDER: usize = memory.data<u64>([
  0x1ff, 0xffffffffffffffff, 0xffffffffffffffff, 0xffffffffffffffff, 0xfffffffffffffffa,
  0x51868783bf2f966b, 0x7fcc0148f709a5d0, 0x3bb5c9b8899c47ae, 0xbb6fb71e91386409,
])

/** The curve's b in the form of a coordinate (same source). */
const CURVE_B: usize = memory.data<u8>([
  0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x51, 0x95, 0x3e, 0xb9, 0x61,
  0x8e, 0x1c, 0x9a, 0x1f, 0x92, 0x9a, 0x21, 0xa0, 0xb6, 0x85, 0x40, 0xee,
  0xa2, 0xda, 0x72, 0x5b, 0x99, 0xb3, 0x15, 0xf3, 0xb8, 0xb4, 0x89, 0x91,
  0x8e, 0xf1, 0x09, 0xe1, 0x56, 0x19, 0x39, 0x51, 0xec, 0x7e, 0x93, 0x7b,
  0x16, 0x52, 0xc0, 0xbd, 0x3b, 0xb1, 0xbf, 0x07, 0x35, 0x73, 0xdf, 0x88,
  0x3d, 0x2c, 0x34, 0xf1, 0xef, 0x45, 0x1f, 0xd4, 0x6b, 0x50, 0x3f, 0x00,
])

/**
 * Cuts the number at `scalar` into `windows` and wipes it. An even scalar d becomes n - d. Window i
 * is bits 5i+1 to 5i+5 of the odd number k, and stands for the digit 2 window - 31; the digits and
 * a leading 1 make k.
 * @returns 1, or 0 when the scalar is 0 or not below n
 */
export function prepare(): i32 {
  const even = <u64>(load<u8>(scalar, 71) & 1) ^ 1
  const flip: u64 = 0 - even
  let borrow: u64 = 0
  let anyScalar: u64 = 0
  let anyDifference: u64 = 0
  for (let word: usize = 8; word < 9; word--) {
    const at = scalar + (word << 3)
    const own = bswap<u64>(load<u64>(at))
    const order = load<u64>(ORDER + (word << 3))
    const difference = order - own - borrow
    borrow = ((~order & own) | (~(order ^ own) & difference)) >> 63
    anyScalar |= own
    anyDifference |= difference
    store<u64>(at, bswap<u64>((difference & flip) | (own & ~flip)))
  }
  for (let window = 0; window < WINDOWS; window++) {
    store<u8>(windows + window, <u8>bitsAt(scalar, WINDOW_BITS * window + 1) & 31)
  }
  store<u8>(windows + WINDOWS, <u8>even)
  memory.fill(scalar, 0, NUMBER)
  return <i32>(borrow == 0) & <i32>(anyScalar != 0) & <i32>(anyDifference != 0)
}

/** Multiplies the point at `x`, `y` by the prepared scalar, in place, and wipes all it left behind. */
export function multiply(): void {
  decode(QX, x)
  decode(QY, y)
  beginAtPoint()
  for (let window = WINDOWS - 1; window >= 0; window--) {
    for (let i = 1; i < WINDOW_BITS; i++) double(true)
    double(false)
    const digit = <i32>load<u8>(windows + window)
    const negative = (digit >> 4) - 1
    pick((digit ^ negative) & 15, negative)
    addPicked()
  }
  toAffine()
  negateIf(QY, i32x4.splat(-<i32>load<u8>(windows + WINDOWS)))
  encode(x, QX)
  encode(y, QY)
  memory.fill(windows, 0, WINDOWS + 1)
  wipeWork()
}

/** @returns 1 when `x`, `y` are below p and satisfy y^2 = x^3 - 3x + b, otherwise 0 */
export function isOnCurve(): i32 {
  if (!isReduced(x) || !isReduced(y)) return 0
  decode(A, x)
  decode(B, y)
  sqr(C, A)
  setSmall(D, 3)
  subCarry(C, C, D)
  mul(A, A, C)
  sqr(B, B)
  subCarry(B, B, A)
  decode(C, CURVE_B)
  subCarry(B, B, C)
  const holds = <i32>isZero(B)
  wipeWork()
  return holds
}
