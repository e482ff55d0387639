import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { networkOf, RateLimiter } from './limits.ts'

test('an address gets its burst at once and then its rate', () => {
  const limiter = new RateLimiter(10, 3)
  const taken = [0, 0, 0, 0, 50, 100, 150, 200].map((now) => limiter.take('192.0.2.1', now))
  assert.deepEqual(taken, [true, true, true, false, false, true, false, true])
  assert.equal(limiter.take('192.0.2.2', 200), true, 'another address has its own')
})

test('over any schedule nobody gets more than burst plus rate times time', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.integer({ min: 1, max: 50 }),
      fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 200 }),
      (rate, burst, gaps) => {
        const limiter = new RateLimiter(rate, burst)
        let now = 0
        let granted = 0
        for (const gap of gaps) {
          now += gap
          if (limiter.take('a', now)) granted += 1
        }
        assert.ok(granted <= burst + (now / 1000) * rate + 1e-6)
      },
    ),
  )
})

test('no rate means no limit, and forgetting an address gives it nothing it had not earned', () => {
  const open = new RateLimiter(0, 1)
  for (let index = 0; index < 10; index += 1) assert.equal(open.take('a', 0), true)
  const limiter = new RateLimiter(1, 2)
  limiter.take('a', 0)
  limiter.take('a', 0)
  limiter.prune(1_000)
  assert.equal(limiter.take('a', 1_000), true)
  assert.equal(limiter.take('a', 1_000), false, 'the bucket was not full, so it was kept')
})

test('an IPv6 network counts as one address', () => {
  assert.equal(networkOf('192.0.2.1'), '192.0.2.1')
  assert.equal(networkOf('::ffff:192.0.2.1'), '192.0.2.1')
  assert.equal(networkOf('2001:db8:1:2:3:4:5:6'), networkOf('2001:db8:1:2:ffff::9'))
  assert.notEqual(networkOf('2001:db8:1:2::1'), networkOf('2001:db8:1:3::1'))
  assert.equal(networkOf('::1'), networkOf('::2'))
})
