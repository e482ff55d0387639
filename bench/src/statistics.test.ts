import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { median, medians, pairwise, quantile, rounded, timesBetter } from './statistics.ts'

test('a quantile is a sample with that share of the samples at or below it', () => {
  assert.equal(quantile([5, 1, 4, 2, 3], 0.5), 3)
  assert.equal(quantile([1, 2], 0.99), 2)
  assert.ok(Number.isNaN(quantile([], 0.5)))
  const samples = fc.array(fc.integer(), { minLength: 1 })
  fc.assert(
    fc.property(samples, fc.double({ min: 0, max: 1, noNaN: true }), (values, q) => {
      const value = quantile(values, q)
      const atOrBelow = values.filter((sample) => sample <= value).length
      assert.ok(values.includes(value) && atOrBelow >= q * values.length)
      const below = values.filter((sample) => sample < value).length
      assert.ok(below < q * values.length || below === 0)
    }),
  )
})

test('a median has as many samples above as below', () => {
  assert.equal(median([9, 1, 5]), 5)
  assert.equal(median([4, 1, 2, 3]), 2.5)
  assert.ok(Number.isNaN(median([])))
})

test('one wild round does not move the figures', () => {
  const rounds = [{ ms: 10 }, { ms: 11 }, { ms: 4000 }]
  assert.deepEqual(medians(rounds), { ms: 11 })
})

test('a ratio above one means that ours is better, whichever way the figure counts', () => {
  assert.equal(timesBetter(300, 100, 'more'), 3)
  assert.equal(timesBetter(100, 300, 'less'), 3)
})

test('paired ratios cancel a machine that slows down between rounds', () => {
  const ours = [{ ms: 1 }, { ms: 2 }, { ms: 10 }]
  const peer = [{ ms: 3 }, { ms: 6 }, { ms: 30 }]
  assert.equal(pairwise(ours, peer, 'ms', 'less'), 3)
})

test('figures are printed with four significant digits', () => {
  assert.equal(rounded(1234.567), 1235)
  assert.equal(rounded(0.0123456), 0.01235)
  assert.ok(Number.isNaN(rounded(Number.NaN)))
})
