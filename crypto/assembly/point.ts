/**
 * The group of P-521 in modified Jacobian coordinates, and the table of multiples of one point.
 * Nothing here branches on a value or addresses memory by one.
 */

import { copy, ELEMENT, negateIf, setSmall } from './element'
import {
  additionX,
  doublingX,
  mul,
  quadrupleCarry,
  sqr,
  sqrTwice,
  subCarry,
  subTwiceCarry,
  tripleAddCarry,
  twice,
} from './field'

const ENTRY: usize = 2 * ELEMENT
const ENTRIES: usize = 16

/** Everything computed from the scalar lies here, from WORK on, and is wiped together. */
const WORK_SIZE: usize = 11 * ELEMENT
const WORK: usize = memory.data(880, 16)

/** The running point in modified Jacobian coordinates (X, Y, Z, a Z^4): Cohen, Miyaji and Ono. */
export const QX: usize = WORK
export const QY: usize = WORK + ELEMENT
const QZ: usize = WORK + 2 * ELEMENT
const QT: usize = WORK + 3 * ELEMENT

export const A: usize = WORK + 4 * ELEMENT
export const B: usize = WORK + 5 * ELEMENT
export const C: usize = WORK + 6 * ELEMENT
export const D: usize = WORK + 7 * ELEMENT
/** The H of the last addition: it multiplied Z. */
const H: usize = WORK + 8 * ELEMENT
/** The table entry picked for the current window: x and y. */
const PICKED: usize = WORK + 9 * ELEMENT

/** P, 3P, ..., 31P, affine on the curve with a = CURVE_A that is isomorphic to P-521. */
const TABLE: usize = memory.data(2560, 16)
const CURVE_A: usize = memory.data(80, 16)
/** A point of the table's curve has Z = TABLE_Z on P-521 itself. */
const TABLE_Z: usize = memory.data(80, 16)
/** How each addition that filled the table changed Z. */
const RATIOS: usize = memory.data(1280, 16)

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
export function double(withT: bool): void {
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
export function pick(index: i32, negative: i32): void {
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

/** Q = P, the point in (QX, QY), on the table's curve, which is made for it. */
export function beginAtPoint(): void {
  fillTable()
  copy(QX, TABLE)
  copy(QY, TABLE + ELEMENT)
  setSmall(QZ, 1)
  copy(QT, CURVE_A)
}

/** Q = Q + what `pick` picked, all four coordinates. */
export function addPicked(): void {
  add(PICKED, PICKED + ELEMENT)
  sqrRepeatedly(A, QZ, 2)
  mul(QT, CURVE_A, A)
}

/** Makes (QX, QY) the affine coordinates of Q on P-521. */
export function toAffine(): void {
  mul(QZ, QZ, TABLE_Z)
  invert(D, QZ)
  scale(QX, QY, D)
}

/** Overwrites everything that was computed from a scalar. */
export function wipeWork(): void {
  memory.fill(WORK, 0, WORK_SIZE)
}
