import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { p256, p384, p521 } from '@noble/curves/nist.js'
import fc from 'fast-check'
import {
  addPoints,
  curveNames,
  curveOf,
  invert,
  isCurveName,
  isOnCurve,
  modulo,
  negate,
  p521Base,
  recoverY,
  toBytes,
  toNumber,
} from './curve.ts'

const oracles = { 'P-256': p256, 'P-384': p384, 'P-521': p521 }

for (const name of curveNames) {
  const curve = curveOf(name)
  const { Point } = oracles[name]
  const scalar = fc.bigInt({ min: 1n, max: curve.n - 1n })
  const point = scalar.map((s) => Point.BASE.multiply(s).toAffine())

  describe(`arithmetic on ${name}`, () => {
    test('the constants are those of another implementation', () => {
      const { p, n, b, a } = Point.CURVE()
      assert.deepEqual({ p: curve.p, n: curve.n, b: curve.b }, { p, n, b })
      assert.equal(a, p - 3n)
      assert.equal(curve.size, Math.ceil(p.toString(2).length / 8))
    })

    test('sums, negatives and membership agree with it', () => {
      fc.assert(
        fc.property(point, point, (a, b) => {
          if (a.x === b.x) return
          const sum = Point.fromAffine(a).add(Point.fromAffine(b)).toAffine()
          assert.deepEqual(addPoints(a, b, curve), sum)
          assert.deepEqual(negate(a, curve), Point.fromAffine(a).negate().toAffine())
          assert.ok(isOnCurve(a, curve) && isOnCurve(sum, curve))
          assert.equal(isOnCurve({ x: a.x, y: b.y }, curve), false)
        }),
        { numRuns: 12 },
      )
    })

    test('y is recovered from two x coordinates', () => {
      fc.assert(
        fc.property(point, fc.bigInt({ min: 1n, max: curve.n - 2n }), (base, s) => {
          const own = Point.fromAffine(base)
          const [q, t] = [own.multiply(s).toAffine(), own.multiply(s + 1n).toAffine()]
          assert.equal(recoverY(base, q.x, t.x, curve), q.y)
        }),
        { numRuns: 12 },
      )
    })

    test('equal and opposite points have no sum here', () => {
      const base = Point.BASE.toAffine()
      for (const other of [base, negate(base, curve)]) {
        assert.throws(() => addPoints(base, other, curve), { code: 'crypto.point_invalid' })
      }
    })

    test('coordinates outside the field are not on the curve', () => {
      const { x, y } = Point.BASE.toAffine()
      for (const off of [
        { x: x + curve.p, y },
        { x, y: y - curve.p },
        { x: 0n, y: 0n },
      ]) {
        assert.equal(isOnCurve(off, curve), false)
      }
    })

    test('inverses and remainders', () => {
      fc.assert(
        fc.property(fc.bigInt({ min: -curve.p * 2n, max: curve.p * 2n }), (value) => {
          const remainder = modulo(value, curve.p)
          assert.ok(remainder >= 0n && remainder < curve.p && (value - remainder) % curve.p === 0n)
          if (remainder !== 0n) assert.equal((invert(value, curve.p) * remainder) % curve.p, 1n)
        }),
        { numRuns: 300 },
      )
      const bits = Array.from({ length: curve.size * 8 }, (_, bit) => 1n << BigInt(bit))
      for (const value of bits.flatMap((power) => [power - 1n, power, power + 1n])) {
        for (const near of [value, curve.p - value, curve.p / (value + 1n)]) {
          if (modulo(near, curve.p) === 0n) continue
          assert.equal(modulo(invert(near, curve.p) * near, curve.p), 1n, `${near}`)
        }
      }
      assert.throws(() => invert(curve.p, curve.p), { code: 'crypto.point_invalid' })
    })

    test('bytes and numbers, at full width', () => {
      fc.assert(
        fc.property(fc.bigInt({ min: 0n, max: curve.p - 1n }), (value) => {
          const bytes = toBytes(value, curve.size)
          assert.equal(bytes.length, curve.size)
          assert.equal(toNumber(bytes), value)
        }),
      )
      assert.equal(toNumber(new Uint8Array()), 0n)
    })
  })
}

test("the generator of P-521 is another implementation's", () => {
  assert.deepEqual(p521Base, p521.Point.BASE.toAffine())
})

test('curve names are exactly three; what objects inherit is not one', () => {
  for (const name of ['constructor', 'toString', '__proto__', 'p-256', 'secp256k1', '', null, 7]) {
    assert.equal(isCurveName(name), false, String(name))
  }
  assert.ok(curveNames.every(isCurveName))
})
