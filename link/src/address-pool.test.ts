import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { addressAt, firstNodeHost, hostOf, hostsOf, lowestFree, parsePool } from './address-pool.ts'

const pools = fc
  .tuple(fc.integer({ min: 8, max: 30 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
  .map(([prefix, value]) => ({ prefix, base: value - (value % 2 ** (32 - prefix)) }))

test('host numbers and addresses are the same thing in two spellings', () => {
  fc.assert(
    fc.property(pools, fc.double({ min: 0, max: 1, noNaN: true }), (pool, part) => {
      const host = 1 + Math.floor(part * (hostsOf(pool) - 1))
      const address = addressAt(pool, host)
      assert.equal(hostOf(pool, address), host)
      const network = addressAt({ base: pool.base - 1, prefix: 8 }, 1)
      assert.deepEqual(parsePool(`${network}/${pool.prefix}`), pool)
      assert.equal(hostOf(pool, network), undefined)
    }),
  )
})

test('a /16 has room for far more than 253 nodes', () => {
  const pool = parsePool('10.88.0.0/16')
  assert.equal(hostsOf(pool), 65_534)
  assert.equal(addressAt(pool, firstNodeHost), '10.88.0.2')
  assert.equal(addressAt(pool, 256), '10.88.1.0')
  assert.equal(addressAt(pool, 65_534), '10.88.255.254')
  assert.throws(() => addressAt(pool, 65_535), { code: 'link.pool_invalid' })
})

test('the lowest free host is free and lowest', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 2, max: 14 })), (list) => {
      const pool = parsePool('192.0.2.0/28')
      const taken = new Set(list)
      const host = lowestFree(pool, taken)
      if (host === undefined) return assert.equal(taken.size, 13)
      assert.equal(taken.has(host), false)
      for (let lower = firstNodeHost; lower < host; lower += 1) assert.equal(taken.has(lower), true)
    }),
  )
})

test('what is not a pool is refused', () => {
  const wrong = ['', '10.88.0.0', '10.88.0.1/16', '10.88.0.0/7', '10.88.0.0/31', '10.88.0.0/16x']
  for (const text of [...wrong, '10.88.0/16', '10.088.0.0/16', '300.0.0.0/8', 'fd00::/64'])
    assert.throws(() => parsePool(text), { code: 'link.pool_invalid' })
})
