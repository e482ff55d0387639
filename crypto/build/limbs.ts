/**
 * How an element modulo p = 2^521 - 1 lies in memory, and the pieces of AssemblyScript that every
 * emitted function is made of.
 *
 * Rules of the representation:
 * - An element is 18 signed limbs of 29 bits, little-endian, in 32-bit lanes; 2^522 = 2 (mod p), so
 *   what leaves limb 17 comes back into limb 0 doubled.
 * - It lies in five vectors (80 bytes): limbs 0-3, 4-7, 8-11, 12-15 and (16, 17, 0, 1). Repeating
 *   limbs 0 and 1 makes wrapped pairs of limbs ordinary loads; lane-wise functions keep the copy true.
 * - "One unit" is a limb magnitude of at most 2^28 + 8. `mul`, `sqr`, `sqrTwice` and everything
 *   called `…Carry` return one unit. A product takes operands whose units multiply to at most 3,
 *   a square takes one unit: then no 64-bit column passes 2^63 - 2^58.
 * - No branch and no address depends on a value.
 */

export const LIMB_BITS = 29
export const LIMB_MASK = 2 ** LIMB_BITS - 1
export const HALF_LIMB = 2 ** (LIMB_BITS - 1)
export const VECTORS = [0, 1, 2, 3, 4]

/** The upper word of 2^63 + 2^57 + 2^28, as a signed number. */
const BIAS_HIGH = 2 ** 25 - 2 ** 31
const OFFSET = -HALF_LIMB - 32

/**
 * Constant vectors, each as four 32-bit lanes. They are loaded from memory: as immediates V8 builds
 * them anew from four instructions at every use.
 *
 * `columnBias` is added to each column before it is cut into 29 + 29 + 6 bits: 2^28 and 2^57 round
 * the cuts to the nearest, 2^63 makes logical shifts, the only 64-bit ones SIMD has, do for signed
 * columns. `columnOffset` takes from the sum of three cuts what the bias left in it, less the 2^28
 * that `emitCarry` expects; `firstColumnOffset` is that for limbs 0 to 3.
 */
const CONSTANTS: Readonly<Record<string, readonly [number, number, number, number]>> = {
  limbMask: [LIMB_MASK, LIMB_MASK, LIMB_MASK, LIMB_MASK],
  halfLimb: [HALF_LIMB, HALF_LIMB, HALF_LIMB, HALF_LIMB],
  firstLane: [-1, 0, 0, 0],
  lowHalf: [-1, -1, 0, 0],
  threeLanes: [-1, -1, -1, 0],
  columnBias: [HALF_LIMB, BIAS_HIGH, HALF_LIMB, BIAS_HIGH],
  columnOffset: [OFFSET, OFFSET, OFFSET, OFFSET],
  firstColumnOffset: [2 * OFFSET, OFFSET - 32, OFFSET, OFFSET],
}

/** An expression for one of the constants. */
export function constant(name: keyof typeof CONSTANTS): string {
  return `v128.load(CONSTANTS, ${16 * Object.keys(CONSTANTS).indexOf(name)})`
}

/** The source that every use of `constant` refers to. */
export function constantTable(): string {
  const lanes = Object.values(CONSTANTS).map((vector) => `  ${vector.join(', ')},`)
  return ['const CONSTANTS: usize = memory.data<i32>([', ...lanes, '], 16)', ''].join('\n')
}

/** Takes one line of a function body. */
export type Emit = (line: string) => void

/** Four consecutive limbs of the element at `pointer`, from limb `start` (mod 18) on. */
export function quad(pointer: string, start: number): string {
  const from = (start + 18) % 18
  if (from < 17) return `v128.load(${pointer}, ${4 * from}, 4)`
  return `v128.shuffle<i32>(${quad(pointer, 15)}, ${quad(pointer, 1)}, 2, 3, 4, 5)`
}

export function reversed(vector: string): string {
  return `v128.shuffle<i32>(${vector}, ${vector}, 3, 2, 1, 0)`
}

/** Lanes `from` to `from + 3` of the eight lanes of two vectors laid end to end. */
export function window(low: string, high: string, from: number): string {
  return `v128.shuffle<i32>(${low}, ${high}, ${[0, 1, 2, 3].map((lane) => lane + from).join(', ')})`
}

/**
 * One parallel carry: vectors `${from}0`-`${from}4` hold limbs plus 2^28 (lanes 2 and 3 of the last
 * are ignored); stores the element at `pointer` with limbs of one unit.
 */
export function emitCarry(emit: Emit, from: string, pointer: string): void {
  emit(`const limbMask = ${constant('limbMask')}`)
  emit(`const halfLimb = ${constant('halfLimb')}`)
  for (const m of VECTORS) emit(`const k${m} = i32x4.shr_s(${from}${m}, ${LIMB_BITS})`)
  emit('const kIn = v128.shuffle<i32>(k4, k4, 1, 1, 1, 1)')
  for (const m of VECTORS) {
    const limbs = `i32x4.sub(v128.and(${from}${m}, limbMask), halfLimb)`
    const carry = window(m === 0 ? 'i32x4.shl(kIn, 1)' : `k${m - 1}`, `k${m}`, 3)
    emit(`const z${m} = i32x4.add(${limbs}, ${carry})`)
  }
  for (const m of [0, 1, 2, 3]) emit(`v128.store(${pointer}, z${m}, ${16 * m})`)
  emit(`v128.store(${pointer}, v128.shuffle<i64>(z4, z0, 0, 2), 64)`)
}

/** An exported AssemblyScript function of pointers to elements, its body written by `body`. */
export function emittedFunction(
  name: string,
  pointers: string[],
  body: (emit: Emit) => void,
): string {
  const lines: string[] = []
  body((line) => lines.push(`  ${line}`))
  const parameters = pointers.map((pointer) => `${pointer}: usize`).join(', ')
  return [`export function ${name}(${parameters}): void {`, ...lines, '}', ''].join('\n')
}
