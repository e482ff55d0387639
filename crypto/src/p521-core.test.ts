import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { instantiateP521, p521Size, preparedLength } from './p521-core.ts'

const p = 2n ** 521n - 1n
const UNIT = 2 ** 28 + 8
const ELEMENT = 80

const core = instantiateP521()
const words = new Int32Array(core.memory.buffer)
const [first, second, result] = [0, 1, 2].map((n) => core.at.scratch + n * ELEMENT) as [
  number,
  number,
  number,
] // map keeps the length, which its type does not say

/** Limbs of up to `units` units: mostly the extremes, where sums of products come close to 2^63. */
function limbs(units: number): fc.Arbitrary<number[]> {
  const most = units * UNIT
  const limb = fc.oneof(
    fc.constantFrom(-most, most, 0, 1, -1),
    fc.integer({ min: -most, max: most }),
  )
  const same = fc.constantFrom(-most, most).map((value) => new Array<number>(18).fill(value))
  return fc.oneof(fc.array(limb, { minLength: 18, maxLength: 18 }), same)
}

/** Writes an element with its copy of limbs 0 and 1. */
function put(at: number, element: number[]): void {
  words.set([...element, ...element.slice(0, 2)], at / 4)
}

function residue(element: Iterable<number>): bigint {
  const value = [...element].reduceRight((sum, limb) => (sum << 29n) + BigInt(limb), 0n)
  return ((value % p) + p) % p
}

/** The value at `at`, after a check that its limbs are within one unit and its copies right. */
function take(at: number): bigint {
  const element = words.slice(at / 4, at / 4 + 20)
  for (const limb of element) assert.ok(Math.abs(limb) <= UNIT, `limb ${limb}`)
  assert.deepEqual(element.slice(18), element.slice(0, 2))
  return residue(element.slice(0, 18))
}

describe('field arithmetic of the P-521 core', () => {
  for (const units of [1, 2, 3]) {
    test(`products with ${units} x 1 units are exact and fit one unit`, () => {
      fc.assert(
        fc.property(limbs(units), limbs(1), (a, b) => {
          put(first, a)
          put(second, b)
          core.mul(result, first, second)
          assert.equal(take(result), (residue(a) * residue(b)) % p)
        }),
        { numRuns: 2000 },
      )
    })
  }

  test('squares and doubled squares are exact and fit one unit', () => {
    fc.assert(
      fc.property(limbs(1), (a) => {
        put(first, a)
        core.sqr(result, first)
        assert.equal(take(result), residue(a) ** 2n % p)
        core.sqrTwice(result, first)
        assert.equal(take(result), (2n * residue(a) ** 2n) % p)
      }),
      { numRuns: 2000 },
    )
  })

  test('the result may lie where an operand does', () => {
    fc.assert(
      fc.property(limbs(1), (a) => {
        put(first, a)
        core.mul(first, first, first)
        put(second, a)
        core.sqr(second, second)
        assert.equal(take(first), take(second))
      }),
    )
  })
})

describe('what the core leaves in its memory', () => {
  test('nothing of the scalar after prepare and multiply but the result', () => {
    const run = (scalar: number) => {
      const fresh = instantiateP521()
      const { x: generatorX, y: generatorY } = generator()
      fresh.memory.set(generatorX, fresh.at.x)
      fresh.memory.set(generatorY, fresh.at.y)
      fresh.memory.set([scalar], fresh.at.scalar + p521Size - 1)
      assert.equal(fresh.prepare(), true)
      fresh.multiply()
      const { x, y, windows } = fresh.at
      assert.ok(
        fresh.memory.subarray(windows, windows + preparedLength).every((byte) => byte === 0),
      )
      fresh.memory.fill(0, x, x + p521Size)
      fresh.memory.fill(0, y, y + p521Size)
      return fresh.memory
    }
    assert.deepEqual(run(3), run(200))
  })
})

/** The generator of P-521 (SEC 2 version 2.0, section 2.6.1). */
function generator() {
  const x =
    '00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66'
  const y =
    '011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650'
  return { x: Buffer.from(x, 'hex'), y: Buffer.from(y, 'hex') }
}
