import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '@holdfast/base'
import { type EcPublicJwk, thumbprint } from '@holdfast/crypto'
import fc from 'fast-check'
import { makeKeys, publicPem } from './identity.ts'
import { WardKeys } from './ward-keys.ts'

// A guardian's keys for its wards when orders come all at once.

const wards = [makeKeys(), makeKeys()].map(({ node, identity }) => ({
  node,
  identity: publicPem(identity),
}))

async function scratch() {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-ward-keys-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

interface Order {
  action: 'prepare' | 'retire' | 'find'
  ward: number
  epoch: number
}

const orders = fc.array(
  fc.record<Order>({
    action: fc.constantFrom('prepare', 'prepare', 'prepare', 'retire', 'find'),
    ward: fc.constantFrom(0, 1),
    epoch: fc.integer({ min: 1, max: 4 }),
  }),
  { minLength: 2, maxLength: 24 },
)

/** What the orders do when they are carried out in the order in which they were given. */
function expected(given: readonly Order[]) {
  const retired = wards.map(() => 0)
  const made = wards.map(() => new Set<number>())
  const outcomes = given.map(({ action, ward, epoch }) => {
    if (action === 'find') return undefined
    if (action === 'retire') retired[ward] = Math.max(epoch, retired[ward] ?? 0)
    else if (epoch <= (retired[ward] ?? 0)) return 'agent.ward_stale'
    else made[ward]?.add(epoch)
    return 'done'
  })
  const living = made.map((epochs, ward) =>
    [...epochs].filter((epoch) => epoch > (retired[ward] ?? 0)).sort((a, b) => a - b),
  )
  return { retired, outcomes, living }
}

/** What came of an order: `done` or a fault's code, and the key where there is one. */
async function carryOut(keys: WardKeys, { action, ward, epoch }: Order) {
  const { node = '', identity = '' } = wards[ward] ?? {}
  try {
    if (action === 'prepare')
      return { outcome: 'done', key: await keys.prepare(node, identity, epoch) }
    if (action === 'retire') await keys.retire(node, epoch)
    else await keys.find(node, epoch, 'x'.repeat(43))
    return { outcome: 'done' }
  } catch (error) {
    if (isFault(error)) return { outcome: error.code }
    throw error
  }
}

const withoutKey = ['agent.ward_unknown', 'agent.ward_stale', 'agent.ward_key_absent']

test('orders that come all at once do what they would do one after the other', async () => {
  await fc.assert(
    fc.asyncProperty(orders, async (given) => {
      await using here = await scratch()
      const keys = new WardKeys(here.path)
      const done = await Promise.all(given.map((order) => carryOut(keys, order)))
      const { retired, outcomes, living } = expected(given)
      for (const [index, { outcome }] of done.entries()) {
        const wanted = outcomes[index]
        if (wanted === undefined) assert.ok(withoutKey.includes(outcome), outcome)
        else assert.equal(outcome, wanted)
      }
      for (const [ward, { node, identity }] of wards.entries()) {
        assert.deepEqual(await keys.epochs(node), living[ward])
        const files = await filesOf(here.path, node)
        const wanted = living[ward]?.map((epoch) => `${epoch}.jwk`)
        assert.deepEqual(
          files.filter((name) => !name.endsWith('.retired')),
          wanted,
          'no key is left of a retired epoch, and nothing half-written',
        )
        for (const epoch of living[ward] ?? []) {
          const given = done.flatMap(({ key }, index) =>
            key && at(index, ward, epoch) ? [key] : [],
          )
          await requireOne(keys, { node, identity, epoch }, given)
        }
        if ((retired[ward] ?? 0) > 0) {
          const again = keys.prepare(node, identity, retired[ward] ?? 0)
          await assert.rejects(again, { code: 'agent.ward_stale' })
        }
      }

      function at(index: number, ward: number, epoch: number): boolean {
        return given[index]?.ward === ward && given[index]?.epoch === epoch
      }
    }),
    { numRuns: 60 },
  )
})

async function filesOf(directory: string, ward: string): Promise<string[]> {
  return (await readdir(join(directory, 'wards', ward)).catch(() => [])).sort()
}

/** Everybody was given the same key, it is the one on the disk, and it is given once more. */
async function requireOne(
  keys: WardKeys,
  { node, identity, epoch }: { node: string; identity: string; epoch: number },
  given: readonly EcPublicJwk[],
): Promise<void> {
  const again = await keys.prepare(node, identity, epoch)
  for (const key of given) assert.equal(JSON.stringify(key), JSON.stringify(again))
  const found = await keys.find(node, epoch, thumbprint(again))
  assert.deepEqual([found.ward, found.epoch, found.key.x], [node, epoch, again.x])
}

test('a key that is asked for many times at once is made once', async () => {
  await using here = await scratch()
  const keys = new WardKeys(here.path)
  const asked = wards.flatMap(({ node, identity }) =>
    [1, 2].flatMap((epoch) =>
      Array.from({ length: 8 }, async () => {
        const key = await keys.prepare(node, identity, epoch)
        return { name: `${node} ${epoch}`, kid: thumbprint(key) }
      }),
    ),
  )
  const byName = Map.groupBy(await Promise.all(asked), ({ name }) => name)
  assert.equal(byName.size, 4)
  for (const each of byName.values()) assert.equal(new Set(each.map(({ kid }) => kid)).size, 1)
})

test('a change that fails does not stand in the way of the next', async () => {
  await using here = await scratch()
  const keys = new WardKeys(here.path)
  const [one, two] = wards
  assert.ok(one && two)
  await mkdir(join(here.path, 'wards', one.node, '1.jwk'), { recursive: true })
  const [first, second] = await Promise.allSettled([
    keys.prepare(one.node, one.identity, 1),
    keys.prepare(two.node, two.identity, 1),
  ])
  assert.ok(first.status === 'rejected' && isFault(first.reason, 'base.file_unreadable'))
  assert.equal(second.status, 'fulfilled')
})

test('a key that is being destroyed is over, not damaged, and its rest goes at the next start', async () => {
  await using here = await scratch()
  const keys = new WardKeys(here.path)
  const [ward] = wards
  assert.ok(ward)
  const { node, identity } = ward
  const kid = thumbprint(await keys.prepare(node, identity, 1))
  const path = join(here.path, 'wards', node, '1.jwk')
  // As it looks in the middle of `retire`: marked, and overwritten.
  await writeFile(join(here.path, 'wards', node, '1.retired'), '')
  await writeFile(path, randomBytes(300))
  const stale = { code: 'agent.ward_stale' }
  await assert.rejects(keys.find(node, 1, kid), stale)
  await assert.rejects(keys.prepare(node, identity, 1), stale)
  assert.deepEqual(await keys.wards(), [])
  await keys.finishRetiring()
  assert.deepEqual(await filesOf(here.path, node), ['1.retired'])
  await assert.rejects(keys.prepare(node, identity, 1), stale)
})

test('a retired key that cannot be destroyed keeps no other, and is told', async () => {
  await using here = await scratch()
  const keys = new WardKeys(here.path)
  for (const { node, identity } of wards) {
    await keys.prepare(node, identity, 1)
    await writeFile(join(here.path, 'wards', node, '1.retired'), '')
  }
  const [first = '', second = ''] = wards.map(({ node }) => node).sort()
  const stuck = join(here.path, 'wards', first, '1.jwk')
  await rm(stuck)
  await mkdir(join(stuck, 'in its place'), { recursive: true })
  await assert.rejects(keys.finishRetiring())
  assert.deepEqual(await filesOf(here.path, second), ['1.retired'])
})

test('an epoch before one that is over is never made, whatever was there', async () => {
  await using here = await scratch()
  const keys = new WardKeys(here.path)
  const [ward] = wards
  assert.ok(ward)
  const { node, identity } = ward
  await keys.retire(node, 3)
  for (const epoch of [1, 2, 3])
    await assert.rejects(keys.prepare(node, identity, epoch), { code: 'agent.ward_stale' })
  assert.ok((await keys.prepare(node, identity, 4)).x !== '')
  assert.deepEqual(await keys.wards(), [node])
})

test('asking for wards makes no directory where there is none', async () => {
  await using here = await scratch()
  assert.deepEqual(await new WardKeys(here.path).wards(), [])
  assert.deepEqual(await readdir(here.path), [])
})

test('what somebody else has put beside the wards stops nothing', async () => {
  await using here = await scratch()
  const keys = new WardKeys(here.path)
  const [ward] = wards
  assert.ok(ward)
  await keys.prepare(ward.node, ward.identity, 1)
  await writeFile(join(here.path, 'wards', 'backup.tar'), 'not ours')
  await keys.finishRetiring()
  assert.deepEqual(await keys.wards(), [ward.node])
  assert.equal(await readFile(join(here.path, 'wards', 'backup.tar'), 'utf8'), 'not ours')
})
