import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { age, moment, parseSize, size } from './format.ts'

test('ages have one unit that a person can read', () => {
  const now = 1_000_000_000_000
  assert.equal(age(undefined, now), 'never')
  assert.equal(age(now, now), '0 s')
  assert.equal(age(now - 119_000, now), '119 s')
  assert.equal(age(now - 120_000, now), '2 min')
  assert.equal(age(now - 2 * 3_600_000, now), '2 h')
  assert.equal(age(now - 3 * 86_400_000, now), '3 d')
  assert.equal(age(now + 5_000, now), '0 s')
})

test('moments are UTC to the second', () => {
  assert.equal(moment(0), '1970-01-01 00:00:00Z')
  assert.equal(moment(undefined), '-')
})

test('sizes read back as they were written', () => {
  assert.equal(size(16 * 1024 * 1024), '16 MiB')
  assert.equal(size(1500), '1.5 KiB')
  assert.equal(parseSize('64M'), 64 * 1024 * 1024)
  assert.equal(parseSize('1GiB'), 1024 ** 3)
  for (const wrong of ['', '-1', '1.5G', '10 M', '1E', '999999999999999T']) {
    assert.equal(parseSize(wrong), undefined, wrong)
  }
  const counts = fc.integer({ min: 0, max: 1023 })
  fc.assert(
    fc.property(counts, fc.constantFrom('K', 'M', 'G'), (count, unit) => {
      const bytes = parseSize(`${count}${unit}`)
      assert.equal(bytes, count * 1024 ** ('KMG'.indexOf(unit) + 1))
    }),
  )
})
