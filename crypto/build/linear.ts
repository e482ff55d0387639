/** Writes the AssemblyScript of sums modulo p = 2^521 - 1, several fused into one pass over memory. */

import { constant, type Emit, emitCarry, emittedFunction, VECTORS } from './limbs.ts'

const add = (x: string, y: string) => `i32x4.add(${x}, ${y})`
const sub = (x: string, y: string) => `i32x4.sub(${x}, ${y})`
const shl = (x: string, bits: number) => `i32x4.shl(${x}, ${bits})`
const load = (pointer: string, vector: number) => `v128.load(${pointer}, ${16 * vector})`

/** A lane-wise sum of operands; `at` gives the operand behind a pointer. */
type Sum = (at: (pointer: string) => string) => string

/** Emits r = sum, carried to one unit; limbs of the sum must stay below 7 units. */
function emitCarriedSum(emit: Emit, result: string, sum: Sum): void {
  emit(`const half = ${constant('halfLimb')}`)
  for (const m of VECTORS) {
    const value = sum((pointer) => load(pointer, m))
    emit(`const t${m} = ${add(value, 'half')}`)
  }
  emitCarry(emit, 't', result)
}

/** Emits r = sum without a carry: the units of the operands add up. */
function emitPlainSum(emit: Emit, result: string, sum: Sum): void {
  for (const m of VECTORS) {
    emit(`v128.store(${result}, ${sum((pointer) => load(pointer, m))}, ${16 * m})`)
  }
}

function carried(name: string, pointers: string[], sum: Sum): string {
  return emittedFunction(name, ['r', ...pointers], (emit) => emitCarriedSum(emit, 'r', sum))
}

/** The source of the sums; each name and the comment beside it say what is computed. */
export function linearFunctions(): string {
  return [
    carried('normalizeCarry', ['a'], (at) => at('a')),
    carried('subCarry', ['a', 'b'], (at) => sub(at('a'), at('b'))),
    // a - 2b
    carried('subTwiceCarry', ['a', 'b'], (at) => sub(at('a'), shl(at('b'), 1))),
    // 4a
    carried('quadrupleCarry', ['a'], (at) => shl(at('a'), 2)),
    // 3a + b
    carried('tripleAddCarry', ['a', 'b'], (at) => add(add(shl(at('a'), 1), at('a')), at('b'))),
    emittedFunction('twice', ['r', 'a'], (emit) => {
      emitPlainSum(emit, 'r', (at) => shl(at('a'), 1))
    }),
    // r = a - 4b and s = 2b - r, three units
    emittedFunction('doublingX', ['r', 's', 'a', 'b'], (emit) => {
      emitCarriedSum(emit, 'r', (at) => sub(at('a'), shl(at('b'), 2)))
      emitPlainSum(emit, 's', (at) => sub(shl(at('b'), 1), at('r')))
    }),
    // r = a - b - 2c and s = c - r, two units
    emittedFunction('additionX', ['r', 's', 'a', 'b', 'c'], (emit) => {
      emitCarriedSum(emit, 'r', (at) => sub(sub(at('a'), at('b')), shl(at('c'), 1)))
      emitPlainSum(emit, 's', (at) => sub(at('c'), at('r')))
    }),
  ].join('\n')
}
