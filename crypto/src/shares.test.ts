import assert from 'node:assert/strict'
import { checkPrimeSync } from 'node:crypto'
import { describe, test } from 'node:test'
import { isFault, Secret } from '@holdfast/base'
import fc from 'fast-check'
import { toBytes, toNumber } from './curve.ts'
import { combineShares, shareLength, splitNewSecret } from './shares.ts'

/** A threshold, a number of shares and an order to take them in. */
const plan = fc.integer({ min: 1, max: 12 }).chain((count) =>
  fc.record({
    threshold: fc.integer({ min: 1, max: count }),
    order: fc.shuffledSubarray(
      Array.from({ length: count }, (_, index) => index),
      { minLength: count, maxLength: count },
    ),
  }),
)

describe('shares', () => {
  test('any threshold of them give the secret back; one fewer does not', () => {
    fc.assert(
      fc.property(plan, ({ threshold, order }) => {
        const { prime, secret, shares } = splitNewSecret(threshold, order.length)
        const taken = order.flatMap((index) => shares[index] ?? [])
        assert.equal(taken.length, order.length)
        using exact = combineShares(taken.slice(0, threshold), prime)
        assert.ok(exact.equals(secret))
        using all = combineShares(taken, prime)
        assert.ok(all.equals(secret))
        if (threshold === 1) return
        using fewer = combineShares(taken.slice(0, threshold - 1), prime)
        assert.equal(fewer.equals(secret), false)
      }),
      { numRuns: 25 },
    )
  })

  test('the modulus is a fresh safe prime with its top bit set; shares are 64 bytes', () => {
    const { prime, shares } = splitNewSecret(2, 3)
    const p = toNumber(prime)
    assert.ok(checkPrimeSync(p) && checkPrimeSync((p - 1n) / 2n) && p >> 255n === 1n)
    assert.ok(shares.every((share) => share.length === shareLength))
    assert.notDeepEqual(splitNewSecret(2, 3).prime, prime)
  })

  test('a changed share gives another secret or a fault', () => {
    const { prime, secret, shares } = splitNewSecret(2, 2)
    const [first, second] = shares
    assert.ok(first && second)
    fc.assert(
      fc.property(fc.nat({ max: 511 }), (bit) => {
        using changed = first.clone()
        const bytes = changed.reveal()
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        try {
          using combined = combineShares([changed, second], prime)
          assert.equal(combined.equals(secret), false)
        } catch (error) {
          assert.ok(isFault(error, 'crypto.shares_malformed'))
        }
      }),
      { numRuns: 60 },
    )
  })

  test('duplicates, wrong lengths, values outside the field and no shares are refused', () => {
    const { prime, shares } = splitNewSecret(2, 3)
    const [first] = shares
    assert.ok(first)
    const share = (x: bigint, y: bigint) =>
      Secret.take(Buffer.concat([toBytes(x, 32), toBytes(y, 32)]))
    const p = toNumber(prime)
    const refused = [
      [first, first.clone()],
      [Secret.random(63)],
      [Secret.random(65)],
      [share(0n, 1n)],
      [share(p, 1n)],
      [share(1n, p)],
      [share(2n ** 256n - 1n, 1n)],
    ]
    for (const list of refused) {
      assert.throws(() => combineShares(list, prime), { code: 'crypto.shares_malformed' })
    }
    assert.throws(() => combineShares([], prime), { code: 'crypto.shares_insufficient' })
  })

  test('a modulus that is none is refused, or fails as a fault', () => {
    const { shares } = splitNewSecret(2, 3)
    const composite = toBytes(3n * (2n ** 254n + 1n), 32)
    const moduli = [Buffer.alloc(0), Buffer.alloc(32), Buffer.alloc(32, 2), Buffer.alloc(33, 255)]
    for (const modulus of moduli) {
      assert.throws(() => combineShares(shares, modulus), { code: 'crypto.shares_malformed' })
    }
    const pair = [1n, 4n].map((x) => Secret.take(Buffer.concat([toBytes(x, 32), toBytes(7n, 32)])))
    assert.throws(
      () => combineShares(pair, composite), // 4 - 1 divides it
      (error) => isFault(error),
    )
  })

  test('impossible thresholds are refused', () => {
    for (const [threshold, count] of [
      [0, 1],
      [2, 1],
      [1, 256],
      [1.5, 2],
      [Number.NaN, 2],
    ] as const) {
      assert.throws(() => splitNewSecret(threshold, count), { code: 'crypto.shares_malformed' })
    }
  })
})
