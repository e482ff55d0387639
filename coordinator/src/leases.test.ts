import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hostOf, hostsOf, parsePool } from '@holdfast/link'
import fc from 'fast-check'
import { addressesOf, keepAddress, releaseAddress, reserveAddress } from './leases.ts'
import { openStore } from './store.ts'

const pool = parsePool('192.0.2.0/28')

type Step =
  | { kind: 'reserve' | 'keep' | 'release'; node: number }
  | { kind: 'wait'; minutes: number }

const node = fc.nat(20)
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('reserve' as const), node }) },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constantFrom('keep' as const, 'release' as const), node }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('wait' as const), minutes: fc.nat(40) }),
    },
  ),
  { maxLength: 40 },
)

test('no two nodes ever have one address, and each gets the lowest that is free', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (list) => {
      await using store = await openStore({ engine: 'sqlite', path: ':memory:' })
      const model = new Map<string, { host: number; until: number }>()
      let now = 1_000_000
      for (const step of list) {
        if (step.kind === 'wait') {
          now += step.minutes * 60_000
          continue
        }
        const name = `node-${step.node}`
        if (step.kind === 'keep') {
          await store.write((work) => keepAddress(work, name))
          const lease = model.get(name)
          if (lease !== undefined) lease.until = Number.POSITIVE_INFINITY
        } else if (step.kind === 'release') {
          await store.write((work) => releaseAddress(work, name))
          model.delete(name)
        } else {
          for (const [each, { until }] of model) if (until <= now) model.delete(each)
          const until = now + 30 * 60_000
          const taken = new Set([...model.values()].map(({ host }) => host))
          const own = model.get(name)
          let free = 2
          while (taken.has(free)) free += 1
          const wanted = own?.host ?? (free <= hostsOf(pool) ? free : undefined)
          const given = await store
            .write((work) => reserveAddress(work, pool, name, now, until))
            .catch((error: { code: string }) => {
              assert.equal(error.code, 'enrolment.pool_full')
              return undefined
            })
          assert.equal(given === undefined ? undefined : hostOf(pool, given), wanted)
          if (wanted !== undefined)
            model.set(name, { host: wanted, until: Math.max(own?.until ?? 0, until) })
        }
        const rows = await store.read.selectFrom('leases').selectAll().execute()
        assert.equal(new Set(rows.map(({ node: holder }) => holder)).size, rows.length)
      }
    }),
    { numRuns: 60 },
  )
})

test('reservations at the same time get different addresses', async () => {
  await using store = await openStore({ engine: 'sqlite', path: ':memory:' })
  const large = parsePool('10.88.0.0/16')
  const given = await Promise.all(
    Array.from({ length: 300 }, (_, index) =>
      store.write((work) => reserveAddress(work, large, `node-${index}`, 0, 1_000)),
    ),
  )
  assert.equal(new Set(given).size, 300)
  assert.equal(given.at(-1), '10.88.1.45')
  const found = await addressesOf(store.read, ['node-0', 'node-299', 'other'])
  const expected = { 'node-0': '10.88.0.2', 'node-299': '10.88.1.45' }
  assert.deepEqual(Object.fromEntries(found), expected)
})
