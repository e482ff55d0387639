import { P521_WASM } from '../generated/p521-wasm.ts'
import { cryptoFault } from './faults.ts'

/**
 * One instance of the WebAssembly core of crypto/assembly/p521.ts. Inputs are written to and results
 * read from `memory` at the addresses in `at`; calls do not overlap. Use it through p521.ts.
 */
export interface P521Core {
  readonly memory: Uint8Array<ArrayBuffer>
  readonly at: {
    /** Coordinates and scalar, 66 bytes each, big-endian. */
    readonly x: number
    readonly y: number
    readonly scalar: number
    /** The prepared scalar, `preparedLength` bytes. */
    readonly windows: number
    /** Room for three field elements of 80 bytes, for tests. */
    readonly scratch: number
  }
  /** Turns the bytes at `scalar` into `windows` and wipes them; false when not in [1, n-1]. */
  prepare(): boolean
  /** Replaces the point at `x`, `y` by its multiple and wipes `windows`. */
  multiply(): void
  /** Whether the coordinates at `x`, `y` are below p and satisfy the curve's equation. */
  isOnCurve(): boolean
  /** Field arithmetic on elements at addresses, for tests: r = ab, r = a^2, r = 2a^2. */
  mul(r: number, a: number, b: number): void
  sqr(r: number, a: number): void
  sqrTwice(r: number, a: number): void
}

/** Coordinates and scalars in bytes. */
export const p521Size = 66

/** Bytes of a prepared scalar. */
export const preparedLength = 105

/** Bytes before each number that stay zero and make it nine 64-bit words. */
const PADDING = 6

/** Compiles and instantiates the core, synchronously: about a millisecond. */
export function instantiateP521(): P521Core {
  const module = new WebAssembly.Module(Buffer.from(P521_WASM, 'base64'))
  const { exports } = new WebAssembly.Instance(module)
  const member = (name: string): unknown => exports[name]
  const address = (name: string): number => {
    const value = member(name)
    if (value instanceof WebAssembly.Global && typeof value.value === 'number') return value.value
    throw malformed(name)
  }
  const call = (name: string): ((...pointers: number[]) => unknown) => {
    const value = member(name)
    if (typeof value !== 'function') throw malformed(name)
    return (...pointers) => value(...pointers)
  }
  const memory = member('memory')
  if (!(memory instanceof WebAssembly.Memory)) throw malformed('memory')
  const [prepare, isOnCurve] = [call('prepare'), call('isOnCurve')]
  return {
    memory: new Uint8Array(memory.buffer),
    at: {
      x: address('x') + PADDING,
      y: address('y') + PADDING,
      scalar: address('scalar') + PADDING,
      windows: address('windows'),
      scratch: address('scratch'),
    },
    prepare: () => prepare() === 1,
    multiply: call('multiply'),
    isOnCurve: () => isOnCurve() === 1,
    mul: call('mul'),
    sqr: call('sqr'),
    sqrTwice: call('sqrTwice'),
  }
}

function malformed(name: string) {
  return cryptoFault('crypto.self_test_failed', `the P-521 core has no usable export ${name}`, {
    hint: 'rebuild it: npm run build -w crypto',
  })
}
