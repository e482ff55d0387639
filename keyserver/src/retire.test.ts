import assert from 'node:assert/strict'
import { copyFile, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault, systemClock } from '@holdfast/base'
import fc from 'fast-check'
import { readDirectory } from './directory.ts'
import { type KeyReport, listKeys } from './inventory.ts'
import { planRetire, retire } from './retire.ts'
import { initialise, rotate } from './rotate.ts'
import { scratch } from './server-fixture.ts'
import { changeState } from './state.ts'
import { addUsage, readUsage, UsageRecorder } from './usage.ts'

const day = 24 * 60 * 60 * 1000
const now = 1_000 * day

const report = (change: Partial<KeyReport>): KeyReport => ({
  kid: 'k',
  thumbprints: ['k', 'k1'],
  use: 'exchange',
  crv: 'P-256',
  prefix: '',
  state: 'hidden',
  since: now - 100 * day,
  uses: 0,
  ...change,
})

test('a hidden key goes only when long hidden, long unused and needed by nobody', () => {
  const plan = (key: KeyReport, options = {}) =>
    planRetire([key], { unusedDays: 30, ...options }, now).destroy
  assert.deepEqual(plan(report({})), ['k'])
  assert.deepEqual(plan(report({ since: now - 29 * day })), [])
  assert.deepEqual(plan(report({ lastUsed: now - 29 * day })), [])
  assert.deepEqual(plan(report({ lastUsed: now - 31 * day })), ['k'])
  assert.deepEqual(plan(report({}), { needed: ['k1'] }), [])
  assert.deepEqual(plan(report({}), { needed: ['other'] }), ['k'])
  assert.deepEqual(plan(report({ state: 'advertised' })), [])
  assert.deepEqual(plan(report({ state: 'advertised' }), { kids: ['k'], force: true }), [])
})

const reports = fc.uniqueArray(
  fc.record({
    kid: fc.string({ minLength: 1, maxLength: 4 }),
    state: fc.constantFrom('advertised' as const, 'hidden' as const, 'retired' as const),
    age: fc.integer({ min: 0, max: 90 }),
    used: fc.option(fc.integer({ min: 0, max: 90 }), { nil: undefined }),
  }),
  { selector: ({ kid }) => kid, maxLength: 10 },
)

test('whatever is asked, an advertised key never goes, and force says what it strands', () => {
  fc.assert(
    fc.property(
      reports,
      fc.array(fc.nat(9)),
      fc.array(fc.nat(9)),
      fc.boolean(),
      (list, named, needed, force) => {
        const keys = list.map(({ kid, state, age, used }) =>
          report({
            kid,
            thumbprints: [kid],
            state,
            since: now - age * day,
            ...(used === undefined ? {} : { lastUsed: now - used * day }),
          }),
        )
        const pick = (indexes: number[]) => indexes.flatMap((index) => keys[index]?.kid ?? [])
        const kids = named.length === 0 ? undefined : pick(named)
        const options = { needed: pick(needed), force, ...(kids === undefined ? {} : { kids }) }
        const plan = planRetire(keys, options, now)
        for (const kid of plan.destroy) {
          const key = keys.find((each) => each.kid === kid)
          assert.equal(key?.state, 'hidden')
          const lastDay = Math.max(key?.lastUsed ?? 0, key?.since ?? now)
          const harmless = now - lastDay >= 30 * day && !options.needed.includes(kid)
          assert.equal(
            plan.stranded.some((each) => each.kid === kid),
            !harmless,
          )
          if (!harmless) assert.ok(force && kids?.includes(kid))
        }
        for (const { kid, reasons } of plan.kept) {
          assert.ok(!plan.destroy.includes(kid))
          assert.ok(reasons.length > 0)
        }
      },
    ),
  )
})

test('retiring removes the file, keeps the record, and names what force strands', async () => {
  await using directory = await scratch()
  const { path } = directory
  await initialise(path, { curve: 'P-256' })
  const old = (await readDirectory(path)).keys
  await rotate(path)
  const exchange = old.find((key) => key.use === 'exchange') ?? assert.fail()
  await addUsage(path, { [exchange.kid]: { last: Date.now(), count: 4 } })
  const options = { kids: [exchange.kid], needed: [exchange.thumbprints[0] ?? ''] }
  await assert.rejects(retire(path, options), (error) => {
    assert.ok(isFault(error, 'keyserver.retire_refused'))
    assert.match(error.message, /used or advertised less than 30 days ago; bindings still need it/)
    return true
  })
  assert.equal((await readDirectory(path)).keys.length, 4)
  const dry = await retire(path, { ...options, force: true, dryRun: true })
  assert.deepEqual(dry.destroy, [exchange.kid])
  assert.equal((await readDirectory(path)).keys.length, 4)
  const plan = await retire(path, { ...options, force: true })
  assert.deepEqual(
    plan.stranded.map(({ kid, neededAs }) => [kid, neededAs]),
    [[exchange.kid, options.needed]],
  )
  const { keys } = await readDirectory(path)
  assert.ok(!keys.some((key) => key.kid === exchange.kid))
  const gone = (await listKeys(path)).keys.find((key) => key.kid === exchange.kid)
  assert.deepEqual([gone?.state, gone?.reason, gone?.uses], ['retired', 'retired', 4])
  await assert.rejects(retire(path, { kids: ['nothing'] }), (error) =>
    isFault(error, 'keyserver.key_absent'),
  )
})

test('what a crash has left of the key while it was written goes too', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  await rotate(directory.path)
  const hidden = (await readDirectory(directory.path)).keys.find(
    (key) => key.hidden && key.use === 'exchange',
  )
  assert.ok(hidden)
  const remains = join(directory.path, `.tmp-${hidden.file}-0123456789ab`)
  await copyFile(join(directory.path, hidden.file), remains)
  await retire(directory.path, { kids: [hidden.kid], force: true })
  const names = await readdir(directory.path)
  assert.deepEqual(
    names.filter((name) => name.includes(hidden.kid)),
    [],
  )
})

test('without names, whatever may go goes and the rest is explained', async () => {
  await using directory = await scratch()
  const { path } = directory
  await initialise(path, { curve: 'P-256' })
  await rotate(path)
  const first = await retire(path)
  assert.deepEqual(first.destroy, [])
  assert.equal(first.kept.length, 2)
  const later = { ...systemClock, now: () => Date.now() + 31 * day }
  const second = await retire(path, {}, later)
  assert.equal(second.destroy.length, 2)
  assert.equal((await readDirectory(path)).keys.length, 2)
})

test('retired keys are listed with the last one first, whatever their names', async () => {
  await using directory = await scratch()
  const { path } = directory
  const gone = { reason: 'retired', prefix: '', use: 'exchange' as const, crv: 'P-256' }
  const destroyed = Object.fromEntries(
    Object.entries({ a: 2, b: 4, c: 1, d: 3, e: 4 }).map(([kid, at]) => [kid, { ...gone, at }]),
  )
  await changeState(path, (state) => ({ ...state, destroyed }))
  const { keys } = await listKeys(path)
  assert.deepEqual(
    keys.map(({ kid }) => kid),
    ['b', 'e', 'd', 'a', 'c'],
  )
})

test('last uses of several servers on one directory are merged', async () => {
  await using directory = await scratch()
  const fail = (error: unknown) => assert.fail(String(error))
  const [one, two] = [1, 2].map(() => new UsageRecorder(directory.path, 60_000, fail))
  for (let index = 0; index < 5; index += 1) one?.note('a', 100 + index)
  two?.note('a', 50)
  two?.note('b', 70)
  await Promise.all([one?.flush(), two?.flush()])
  await one?.flush()
  assert.deepEqual(await readUsage(directory.path), {
    a: { last: 104, count: 6 },
    b: { last: 70, count: 1 },
  })
})

test('uses that could not be written are kept and written later', async () => {
  await using directory = await scratch()
  const errors: unknown[] = []
  const path = `${directory.path}/later`
  await writeFile(path, 'in the way')
  const recorder = new UsageRecorder(path, 60_000, (error) => errors.push(error))
  recorder.note('a', 5)
  await recorder.flush()
  assert.equal(errors.length, 1)
  await rm(path)
  recorder.note('a', 9)
  await recorder.flush()
  assert.deepEqual(await readUsage(path), { a: { last: 9, count: 2 } })
})
