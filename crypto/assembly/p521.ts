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

import {
  additionX,
  doublingX,
  mul,
  normalizeCarry,
  quadrupleCarry,
  sqr,
  sqrTwice,
  subCarry,
  subTwiceCarry,
  tripleAddCarry,
  twice,
} from './field'

// For tests of the field arithmetic by itself.
export { mul, sqr, sqrTwice }

const LIMBS = 18
const LIMB_BITS = 29
const LIMB_MASK: u64 = 0x1fffffff
const TOP_MASK: i64 = 0xfffffff
const ELEMENT: usize = 80
const ENTRY: usize = 2 * ELEMENT
const ENTRIES: usize = 16
const WINDOW_BITS = 5
const WINDOWS = 104

/** Coordinates and scalar: 66 bytes, big-endian, after 6 zero bytes that make them 9 whole words. */
const NUMBER: usize = 72
export const x: usize = memory.data(72, 16)
export const y: usize = memory.data(72, 16)
export const scalar: usize = memory.data(72, 16)
/** A prepared scalar: 104 windows, lowest first, and a byte that is 1 when the result is negated. */
export const windows: usize = memory.data(105, 16)

/** Room for two elements that tests may use. */
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

/** The running point in modified Jacobian coordinates (X, Y, Z, a Z^4): Cohen, Miyaji and Ono. */
const QX: usize = memory.data(80, 16)
const QY: usize = memory.data(80, 16)
const QZ: usize = memory.data(80, 16)
const QT: usize = memory.data(80, 16)

const A: usize = memory.data(80, 16)
const B: usize = memory.data(80, 16)
const C: usize = memory.data(80, 16)
const D: usize = memory.data(80, 16)
/** The H of the last addition: it multiplied Z. */
const H: usize = memory.data(80, 16)
/** The table entry picked for the current window. */
const PICKED: usize = memory.data(160, 16)
/** P, 3P, ..., 31P, affine on the curve y^2 = x^3 + CURVE_A x + ... isomorphic to P-521. */
const TABLE: usize = memory.data(2560, 16)
const CURVE_A: usize = memory.data(80, 16)
/** A point of the table's curve has Z = TABLE_Z on P-521 itself. */
const TABLE_Z: usize = memory.data(80, 16)
const RATIOS: usize = memory.data(1280, 16)

function copy(to: usize, from: usize): void {
  memory.copy(to, from, ELEMENT)
}

/** The element of value `value`, |value| < 2^28. */
function setSmall(element: usize, value: i32): void {
  memory.fill(element, 0, ELEMENT)
  store<i32>(element, value)
  store<i32>(element, value, 72)
}

/** `bits` bits from bit `from` on of the number whose big-endian words begin at `number`. */
function bitsAt(number: usize, from: i32): u64 {
  return bswap<u64>(load<u64>(number + (64 - (from >> 3)))) >> (from & 7)
}

/** Reads a 521-bit number. */
function decode(element: usize, number: usize): void {
  for (let limb = 0; limb < LIMBS; limb++) {
    store<u32>(element + (limb << 2), <u32>(bitsAt(number, LIMB_BITS * limb) & LIMB_MASK))
  }
  store<u64>(element, load<u64>(element), 72)
  normalizeCarry(element, element)
}

/** Carries every limb into [0, 2^29), the last into [0, 2^28); what passes 2^521 comes back. */
function carryFully(element: usize): void {
  let carry: i64 = 0
  for (let limb = 0; limb < LIMBS; limb++) {
    const at = element + (limb << 2)
    const sum = <i64>load<i32>(at) + carry
    if (limb == LIMBS - 1) {
      store<i32>(at, <i32>(sum & TOP_MASK))
      carry = sum >> (LIMB_BITS - 1)
    } else {
      store<i32>(at, <i32>(sum & <i64>LIMB_MASK))
      carry = sum >> LIMB_BITS
    }
  }
  store<i32>(element, load<i32>(element) + <i32>carry)
}

/** Makes limbs 0-17 the only representation in [0, p); the copies of limbs 0 and 1 are lost. */
function canonicalize(element: usize): void {
  // 2p is added limb by limb, which makes the number positive.
  for (let limb = 0; limb < LIMBS; limb++) {
    const at = element + (limb << 2)
    store<i32>(at, load<i32>(at) + (limb == 0 ? 0x1ffffffe : 0x1fffffff))
  }
  for (let pass = 0; pass < 2; pass++) carryFully(element)
  // The number is in [0, 2^521): only p itself is left to become 0, and p + 1 has bit 521.
  let carry: i64 = 1
  for (let limb = 0; limb < LIMBS; limb++) {
    carry = (<i64>load<i32>(element + (limb << 2)) + carry) >> (limb == LIMBS - 1 ? 28 : 29)
  }
  const keep = <i32>carry - 1
  for (let limb = 0; limb < LIMBS; limb++) {
    const at = element + (limb << 2)
    store<i32>(at, load<i32>(at) & keep)
  }
}

/** Writes the number, canonical, as 66 bytes after 6 zero bytes. */
function encode(number: usize, element: usize): void {
  canonicalize(element)
  memory.fill(number, 0, 6)
  let pending: u64 = 0
  let count = 0
  let limb = 0
  for (let byte: usize = 0; byte < 66; byte++) {
    if (count < 8 && limb < LIMBS) {
      pending |= <u64>load<u32>(element + (limb << 2)) << count
      count += LIMB_BITS
      limb++
    }
    store<u8>(number + 71 - byte, <u8>pending)
    pending >>= 8
    count -= 8
  }
}

/** r = a^(2^count) */
function sqrRepeatedly(r: usize, a: usize, count: i32): void {
  sqr(r, a)
  for (let i = 1; i < count; i++) sqr(r, r)
}

/** r = 1 / a = a^(p - 2), p - 2 = 4 (2^519 - 1) + 1, by a fixed chain; r is not a. */
function invert(r: usize, a: usize): void {
  // B = a^(2^7 - 1) is set aside while A grows to a^(2^512 - 1).
  sqr(A, a)
  mul(A, A, a)
  sqr(B, A)
  mul(B, B, a)
  sqrRepeatedly(C, B, 3)
  mul(B, C, B)
  sqr(B, B)
  mul(B, B, a)
  for (let length = 2; length < 512; length <<= 1) {
    sqrRepeatedly(C, A, length)
    mul(A, A, C)
  }
  sqrRepeatedly(A, A, 7)
  mul(A, A, B)
  sqrRepeatedly(A, A, 2)
  mul(r, A, a)
}

/** Q = 2Q; without the last coordinate when nothing will need it. */
function double(withT: bool): void {
  sqr(A, QX)
  tripleAddCarry(A, A, QT)
  sqrTwice(B, QY)
  mul(C, QX, B)
  sqr(B, B)
  twice(D, QY)
  mul(QZ, QZ, D)
  sqr(D, A)
  doublingX(QX, D, D, C)
  mul(C, A, D)
  subTwiceCarry(QY, C, B)
  if (!withT) return
  quadrupleCarry(B, B)
  mul(QT, QT, B)
}

/** Q = Q + (px, py), an affine point other than Q and -Q; leaves H. */
function add(px: usize, py: usize): void {
  sqr(A, QZ)
  mul(B, QZ, A)
  mul(A, A, px)
  mul(B, B, py)
  subCarry(H, A, QX)
  subCarry(B, B, QY)
  sqr(C, H)
  mul(D, H, C)
  mul(C, QX, C)
  mul(QZ, QZ, H)
  sqr(A, B)
  additionX(QX, A, A, D, C)
  mul(A, B, A)
  mul(D, QY, D)
  subCarry(QY, A, D)
}

/** (px, py) = (px z^2, py z^3) */
function scale(px: usize, py: usize, z: usize): void {
  sqr(A, z)
  mul(px, px, A)
  mul(A, A, z)
  mul(py, py, A)
}

/**
 * Fills the table from the point in (QX, QY). No inversion: the curve is replaced by an isomorphic
 * one, first so that 2P is affine and then so that all sixteen multiples share one Z.
 */
function fillTable(): void {
  copy(TABLE, QX)
  copy(TABLE + ELEMENT, QY)
  setSmall(QZ, 1)
  setSmall(QT, -3)
  double(true)
  copy(PICKED, QX)
  copy(PICKED + ELEMENT, QY)
  copy(CURVE_A, QT)
  copy(TABLE_Z, QZ)
  scale(TABLE, TABLE + ELEMENT, QZ)
  copy(QX, TABLE)
  copy(QY, TABLE + ELEMENT)
  setSmall(QZ, 1)
  for (let entry: usize = 1; entry < ENTRIES; entry++) {
    add(PICKED, PICKED + ELEMENT)
    copy(TABLE + entry * ENTRY, QX)
    copy(TABLE + entry * ENTRY + ELEMENT, QY)
    copy(RATIOS + entry * ELEMENT, H)
  }
  mul(TABLE_Z, TABLE_Z, QZ)
  sqrRepeatedly(A, QZ, 2)
  mul(CURVE_A, CURVE_A, A)
  const ratio = RATIOS + (ENTRIES - 1) * ELEMENT
  for (let entry: usize = ENTRIES - 2; entry > 0; entry--) {
    scale(TABLE + entry * ENTRY, TABLE + entry * ENTRY + ELEMENT, ratio)
    mul(ratio, ratio, RATIOS + entry * ELEMENT)
  }
  scale(TABLE, TABLE + ELEMENT, ratio)
}

/** Copies (2 index + 1) P, negated when `negative` is -1 and not 0, reading the whole table. */
function pick(index: i32, negative: i32): void {
  const wanted = i32x4.splat(index)
  const sign = i32x4.splat(negative)
  for (let at: usize = 0; at < ENTRY; at += 32) {
    let low = i32x4.splat(0)
    let high = i32x4.splat(0)
    for (let entry: usize = 0; entry < ENTRIES; entry++) {
      const mask = i32x4.eq(wanted, i32x4.splat(<i32>entry))
      const from = TABLE + entry * ENTRY + at
      low = v128.or(low, v128.and(v128.load(from), mask))
      high = v128.or(high, v128.and(v128.load(from, 16), mask))
    }
    v128.store(PICKED + at, low)
    v128.store(PICKED + at, high, 16)
  }
  negateIf(PICKED + ELEMENT, sign)
}

function negateIf(element: usize, mask: v128): void {
  for (let at: usize = 0; at < ELEMENT; at += 16) {
    const limbs = v128.load(element + at)
    v128.store(element + at, i32x4.sub(v128.xor(limbs, mask), mask))
  }
}

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
  fillTable()
  copy(QX, TABLE)
  copy(QY, TABLE + ELEMENT)
  setSmall(QZ, 1)
  copy(QT, CURVE_A)
  for (let window = WINDOWS - 1; window >= 0; window--) {
    for (let i = 1; i < WINDOW_BITS; i++) double(true)
    double(false)
    const digit = <i32>load<u8>(windows + window)
    const negative = (digit >> 4) - 1
    pick((digit ^ negative) & 15, negative)
    add(PICKED, PICKED + ELEMENT)
    sqrRepeatedly(A, QZ, 2)
    mul(QT, CURVE_A, A)
  }
  mul(QZ, QZ, TABLE_Z)
  invert(D, QZ)
  scale(QX, QY, D)
  negateIf(QY, i32x4.splat(-<i32>load<u8>(windows + WINDOWS)))
  encode(x, QX)
  encode(y, QY)
  memory.fill(windows, 0, WINDOWS + 1)
  memory.fill(QX, 0, <usize>(TABLE - QX))
}

function isReduced(number: usize): bool {
  let ones: u64 = load<u64>(number) | bswap<u64>(~(<u64>0x1ff))
  for (let at: usize = 8; at < NUMBER; at += 8) ones &= load<u64>(number + at)
  return bswap<u64>(load<u64>(number)) <= 0x1ff && ones != ~(<u64>0)
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
  canonicalize(B)
  let any: u32 = 0
  for (let at: usize = 0; at < 4 * LIMBS; at += 4) any |= load<u32>(B + at)
  return <i32>(any == 0)
}
