/** Writes the AssemblyScript of products and squares modulo p = 2^521 - 1. */

import {
  constant,
  type Emit,
  emitCarry,
  emittedFunction,
  quad,
  reversed,
  VECTORS,
  window,
} from './limbs.ts'

/** How a product of two elements treats the pair of limbs i < j. */
interface PairRule {
  /** The pointer whose element the right factors come from; the left ones are from `a`. */
  second: 'a' | 'b'
  /** Whether lanes that wrap are doubled in the left factor already, where only some lanes do. */
  doublesLanes: boolean
  left(i: string, j: string): string
  right(i: string, j: string): string
}

/**
 * a_i b_j + a_j b_i = (a_i - a_j)(b_j - b_i) + a_i b_i + a_j b_j (Granger and Scott, "Faster ECC
 * over F_2^521-1", PKC 2015): one multiplication for two;
 * `emitDiagonal` adds the rest. Against plain products it measured 59 to 76 ns.
 */
const GRANGER_SCOTT: PairRule = {
  second: 'b',
  doublesLanes: false,
  left: (i, j) => `i32x4.sub(${i}, ${j})`,
  right: (i, j) => `i32x4.sub(${j}, ${i})`,
}

/** In a square both cross terms are equal; the doubling is done once per column. */
const SQUARE: PairRule = {
  second: 'a',
  doublesLanes: true,
  left: (i) => i,
  right: (_i, j) => j,
}

interface Pairs {
  /** First limb of each side, for lane 0; the other lanes take the following limbs. */
  i: number
  j: number
  /** So many lanes, from lane 0 on, wrap around 2^522 and count twice. */
  wrapped: number
}

/** The limb pairs of columns k, k+2, k+4, k+6 (k one of 0, 1, 8, 9), a lane for each column. */
function columnPairs(k: number): Pairs[] {
  const pairs: Pairs[] = []
  for (let d = k % 2 === 0 ? 2 : 1; d <= 17; d += 2) {
    if (d <= k) pairs.push({ i: (k - d) / 2, j: (k + d) / 2, wrapped: 0 })
    if (d <= 10 - k) pairs.push({ i: (k + 18 - d) / 2, j: (k + 18 + d) / 2, wrapped: 4 })
    if (d > k && d <= k + 6) pairs.push({ i: (k - d) / 2, j: (k + d) / 2, wrapped: (d - k) / 2 })
  }
  return pairs
}

/** The sums that make up columns of one group: by half of its vectors and by weight. */
class ColumnSums {
  readonly #emit: Emit
  readonly #begun = new Set<string>()

  constructor(emit: Emit) {
    this.#emit = emit
  }

  /** Adds the products of x and y to columns k, k+2 and k+4, k+6; `wrapped` lanes count twice. */
  add(k: number, x: string, y: string, wrapped: number): void {
    for (const [half, part] of ['low', 'high'].entries()) {
      const lanes = Math.min(2, Math.max(0, wrapped - 2 * half))
      const name = `${['once', 'mixed', 'twice'][lanes]}${k}_${half}`
      const product = `i64x2.extmul_${part}_i32x4_s(${x}, ${y})`
      const begun = this.#begun.has(name)
      this.#emit(begun ? `${name} = i64x2.add(${name}, ${product})` : `let ${name} = ${product}`)
      this.#begun.add(name)
    }
  }

  /** The expression of columns k, k+2 (half 0) or k+4, k+6 (half 1). */
  total(k: number, half: number): string {
    const [once, mixed, twice] = ['once', 'mixed', 'twice'].map((name) => `${name}${k}_${half}`)
    const parts = [`i64x2.shl(${twice}, 1)`]
    if (this.#begun.has(`${mixed}`)) parts.push(`${mixed}`, `v128.and(${mixed}, lowHalf)`)
    if (this.#begun.has(`${once}`)) parts.push(`${once}`)
    return parts.reduce((sum, part) => `i64x2.add(${sum}, ${part})`)
  }
}

/** Emits the sums of the columns from `first` to `first + 7` (0 or 8), even and odd ones together. */
function emitColumns(emit: Emit, rule: PairRule, first: number): void {
  const sums = new ColumnSums(emit)
  const pairs = [first, first + 1].flatMap((k) => columnPairs(k).map((pair) => ({ ...pair, k })))
  // Pairs that share their first limbs follow each other, so that these stay in a register.
  pairs.sort((p, q) => p.i - q.i || p.k - q.k)
  for (const [index, { i, j, k, wrapped }] of pairs.entries()) {
    const name = `${first}_${(i + 18) % 18}`
    const doubled = rule.doublesLanes && wrapped % 4 !== 0
    if (pairs[index - 1]?.i !== i) {
      emit(`const a${name} = ${doubled ? `doubled${wrapped}` : quad('a', i)}`)
      if (rule.second === 'b') emit(`const b${name} = ${quad('b', i)}`)
    }
    emit(`const x${k}_${index} = ${rule.left(`a${name}`, quad('a', j))}`)
    emit(`const y${k}_${index} = ${rule.right(`b${name}`, quad(rule.second, j))}`)
    sums.add(k, `x${k}_${index}`, `y${k}_${index}`, doubled ? 0 : wrapped)
  }
  for (const half of [0, 1]) {
    emit(`let e${first / 4 + half} = ${sums.total(first, half)}`)
    emit(`let o${first / 4 + half} = ${sums.total(first + 1, half)}`)
  }
}

/** Emits the pair sums of columns 16 and 17, which only low pairs reach; returns their vector. */
function emitLastColumns(emit: Emit, rule: PairRule): string {
  const middle = [quad('a', 8), quad('a', 9), quad(rule.second, 8), quad(rule.second, 9)] as const
  emit(`const xm = ${rule.left(middle[0], middle[1])}`)
  emit(`const ym = ${rule.right(middle[2], middle[3])}`)
  emit('let last17 = v128.and(i64x2.extmul_low_i32x4_s(xm, ym), lowHalf)')
  emit('let last16 = zero')
  for (const column of [16, 17]) {
    for (const start of [0, 4]) {
      const partner = column - start - 3
      const id = `l${column}_${start}`
      emit(`const x${id} = ${rule.left(quad('a', start), reversed(quad('a', partner)))}`)
      emit(
        `const y${id} = ${rule.right(quad(rule.second, start), reversed(quad(rule.second, partner)))}`,
      )
      for (const part of ['low', 'high']) {
        const value = `i64x2.extmul_${part}_i32x4_s(x${id}, y${id})`
        emit(`last${column} = i64x2.add(last${column}, ${value})`)
      }
    }
  }
  return 'i64x2.add(v128.shuffle<i64>(last16, last17, 0, 2), v128.shuffle<i64>(last16, last17, 1, 3))'
}

/** Emits all pair sums as e0-e3 (even columns), o0-o3 (odd columns) and t (columns 16, 17). */
function emitPairs(emit: Emit, rule: PairRule): void {
  emit(`const lowHalf = ${constant('lowHalf')}`)
  emit('const zero = i64x2.splat(0)')
  for (const [index, lanes] of (['firstLane', 'lowHalf', 'threeLanes'] as const).entries()) {
    if (!rule.doublesLanes) continue
    const name = `doubled${index + 1}`
    emit(`let ${name} = ${quad('a', -index - 1)}`)
    emit(`${name} = i32x4.add(${name}, v128.and(${name}, ${constant(lanes)}))`)
  }
  emitColumns(emit, rule, 0)
  emitColumns(emit, rule, 8)
  emit(`let t = ${emitLastColumns(emit, rule)}`)
}

/**
 * Adds the squares q_i = a_i b_i of Granger and Scott and the bias: column k gains q_0 + … + q_k and
 * twice q_(k+1) + … + q_17, that is twice the sum of all less a prefix sum.
 */
function emitDiagonal(emit: Emit): void {
  for (const m of [0, 1, 2, 3]) {
    emit(`const qa${m} = ${quad('a', 4 * m)}`)
    emit(`const qb${m} = ${quad('b', 4 * m)}`)
    emit(`const ql${m} = i64x2.extmul_low_i32x4_s(qa${m}, qb${m})`)
    emit(`const qh${m} = i64x2.extmul_high_i32x4_s(qa${m}, qb${m})`)
    emit(`const qo${m} = v128.shuffle<i64>(ql${m}, qh${m}, 1, 3)`)
    emit(`const s${m} = i64x2.add(v128.shuffle<i64>(ql${m}, qh${m}, 0, 2), qo${m})`)
    emit(`let p${m} = i64x2.add(s${m}, v128.shuffle<i64>(zero, s${m}, 0, 2))`)
    if (m > 0) emit(`p${m} = i64x2.add(p${m}, r${m - 1})`)
    emit(`const r${m} = v128.shuffle<i64>(p${m}, p${m}, 1, 1)`)
  }
  emit(`const qt = i64x2.extmul_low_i32x4_s(${quad('a', 16)}, ${quad('b', 16)})`)
  emit('const pt = i64x2.add(i64x2.add(qt, v128.shuffle<i64>(zero, qt, 0, 2)), r3)')
  emit('const all = i64x2.shl(v128.shuffle<i64>(pt, pt, 1, 1), 1)')
  emit(`const bias = ${constant('columnBias')}`)
  emit(`const base = i64x2.add(all, bias)`)
  for (const m of [0, 1, 2, 3]) {
    emit(`const w${m} = i64x2.sub(base, p${m})`)
    emit(`o${m} = i64x2.add(o${m}, w${m})`)
    emit(`e${m} = i64x2.add(e${m}, i64x2.add(w${m}, qo${m}))`)
  }
  emit('t = i64x2.add(t, i64x2.sub(base, pt))')
}

/** Doubles the pair sums of a square and adds its diagonal; doubles the whole if told; biases. */
function emitSquares(emit: Emit, twice: boolean): void {
  emit(`const bias = ${constant('columnBias')}`)
  for (const start of [0, 4, 9, 13]) emit(`const q${start} = ${quad('a', start)}`)
  for (const m of [0, 1, 2, 3]) {
    const part = m % 2 === 0 ? 'low' : 'high'
    const [once, wrapped] = [4 * (m >> 1), 4 * (m >> 1) + 9].map(
      (start) => `i64x2.extmul_${part}_i32x4_s(q${start}, q${start})`,
    )
    emit(`e${m} = i64x2.add(${once}, i64x2.shl(i64x2.add(e${m}, ${wrapped}), 1))`)
    emit(`o${m} = i64x2.shl(o${m}, 1)`)
  }
  emit(`const ends = v128.shuffle<i32>(${quad('a', 8)}, ${quad('a', 16)}, 0, 5, 0, 5)`)
  emit('const q8q17 = i64x2.extmul_low_i32x4_s(ends, ends)')
  emit('const q8 = v128.and(q8q17, lowHalf)')
  emit('const q17 = v128.shuffle<i64>(q8q17, zero, 1, 2)')
  emit('t = i64x2.add(q8, i64x2.shl(i64x2.add(t, q17), 1))')
  for (const column of ['e0', 'e1', 'e2', 'e3', 'o0', 'o1', 'o2', 'o3', 't']) {
    const value = twice ? `i64x2.shl(${column}, 1)` : column
    emit(`${column} = i64x2.add(${value}, bias)`)
  }
}

/** Cuts the biased columns into limbs, brings what passes 2^522 back doubled, stores at `r`. */
function emitReduction(emit: Emit): void {
  emit(`const mask = ${constant('limbMask')}`)
  for (const m of [0, 1, 2, 3]) {
    const blend = (even: string, odd: string) => `v128.shuffle<i32>(${even}, ${odd}, 0, 5, 2, 7)`
    emit(`const lo${m} = v128.and(${blend(`e${m}`, `i64x2.shl(o${m}, 32)`)}, mask)`)
    emit(
      `const mid${m} = v128.and(${blend(`i64x2.shr_u(e${m}, 29)`, `i64x2.shl(o${m}, 3)`)}, mask)`,
    )
    emit(`const hi${m} = ${blend(`i64x2.shr_u(e${m}, 58)`, `i64x2.shr_u(o${m}, 26)`)}`)
  }
  const spread = (vector: string) => `v128.shuffle<i32>(${vector}, ${vector}, 0, 2, 0, 2)`
  emit(`const lo4 = v128.and(${spread('t')}, mask)`)
  emit(`const mid4 = v128.and(${spread('i64x2.shr_u(t, 29)')}, mask)`)
  emit(`const hi4 = ${spread('i64x2.shr_u(t, 58)')}`)
  emit(`const offset = ${constant('columnOffset')}`)
  emit('const midIn = i32x4.shl(mid4, 1)')
  emit('const hiIn = i32x4.shl(hi4, 1)')
  for (const m of VECTORS) {
    const mid = window(m === 0 ? 'midIn' : `mid${m - 1}`, `mid${m}`, 3)
    const offset = m === 0 ? constant('firstColumnOffset') : 'offset'
    const hi = window(m === 0 ? 'hiIn' : `hi${m - 1}`, `hi${m}`, 2)
    emit(`const u${m} = i32x4.add(i32x4.add(lo${m}, ${mid}), i32x4.add(${hi}, ${offset}))`)
  }
  emitCarry(emit, 'u', 'r')
}

/** The source of `mul(r, a, b)`, `sqr(r, a)` and `sqrTwice(r, a)`, the last being 2 a^2. */
export function productFunctions(): string {
  const square = (twice: boolean) => (emit: Emit) => {
    emitPairs(emit, SQUARE)
    emitSquares(emit, twice)
    emitReduction(emit)
  }
  return [
    emittedFunction('mul', ['r', 'a', 'b'], (emit) => {
      emitPairs(emit, GRANGER_SCOTT)
      emitDiagonal(emit)
      emitReduction(emit)
    }),
    emittedFunction('sqr', ['r', 'a'], square(false)),
    emittedFunction('sqrTwice', ['r', 'a'], square(true)),
  ].join('\n')
}
