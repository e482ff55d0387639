import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { manifestSchema } from '@holdfast/protocol/manifest'
import { listCommands, orderCommand } from './commands.ts'
import { openCommands } from './commands-delivery.ts'
import { expireCommands } from './commands-end.ts'
import { claimed, depsOf, place } from './coordinator-fixture.ts'
import { bothEngines, type Engines } from './engines-fixture.ts'
import { createInvite, listInvites } from './invites.ts'
import { getNode } from './nodes.ts'
import { belowMargin } from './reshare-shown.ts'
import { openStore, type Store } from './store.ts'
import { addWay, listWays, rotateDataKey } from './way-changes.ts'

// What people are shown, agents are told and the audit log keeps is in an order that means something: an
// engine gives rows in any, most ids are random, and several things happen in one millisecond.

let engines: Engines
before(async () => {
  engines = await bothEngines()
})
after(() => engines[Symbol.asyncDispose]())

const clock = { now: () => 1_800_000_000_000, sleep: async () => undefined }
const liveness = { now: clock.now(), silence: 100_000 }
const guardian = 'g'.repeat(43)
/** Neither their ids nor the order in which they came is that of their names. */
const wards = ['delta', 'alpha', 'echo', 'bravo', 'charlie'].map((name, index) => ({
  ...{ node: `${9 - index}`.repeat(43), name },
}))
const byName = wards.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(({ node }) => node)

async function putNodes(store: Store): Promise<void> {
  const rows = [{ node: guardian, name: 'guardian' }, ...wards].map((each) => ({
    ...{ ...each, address: '192.0.2.1', identity: '', exchange: '', wireguard: '', epoch: 1 },
    ...{ certificate: '', phase: 'open', threshold: 2, frozen: 0, witnessed: 0 },
    ...{ ports: '{"peer":9998,"wireguard":51820}', guardians: JSON.stringify([guardian]) },
  }))
  await store.write((work) => work.insertInto('nodes').values(rows).execute())
  // In PostgreSQL a row that was changed lies elsewhere.
  for (const { node } of wards.slice(1, 3))
    await store.write((work) =>
      work.updateTable('nodes').set({ heard_at: 1 }).where('node', '=', node).execute(),
    )
}

test('nodes stand in the order of their names, wherever they are listed', async () => {
  for (const location of engines.locations) {
    await using store = await openStore(location)
    await putNodes(store)
    const shown = await getNode(store.read, guardian, liveness)
    const withoutItself = shown.wards.filter((node) => node !== guardian)
    assert.deepEqual(withoutItself, byName, location.engine)
    const holders = { none: 'there will be no recovery' }
    const manifest = manifestSchema.parse({ version: 1, cluster: 'fleet', holders })
    const below = await belowMargin(store.read, manifest, liveness)
    assert.deepEqual(
      below.filter((node) => node !== guardian),
      byName,
      location.engine,
    )
  }
})

test('commands of one millisecond are told, listed and given up in the order in which they were given', async () => {
  for (const location of engines.locations) {
    await using store = await openStore(location)
    const given: string[] = []
    for (let count = 0; count < 12; count += 1) {
      const wanted = { command: 'status', arguments: {} } as const
      const { id } = await store.write((work) =>
        orderCommand(work, clock, guardian, wanted, { twoPersonRule: false }, 'user:ada'),
      )
      given.push(id)
    }
    const told = await openCommands(store.read, clock.now(), [guardian])
    assert.deepEqual(
      told.map(({ id }) => id),
      given,
      location.engine,
    )
    const listed = await listCommands(store.read, guardian)
    assert.deepEqual(
      listed.map(({ id }) => id),
      given.toReversed(),
      location.engine,
    )
    const later = { ...clock, now: () => clock.now() + 24 * 60 * 60_000 }
    assert.equal(await expireCommands(store, later), given.length)
    const log = await store.read
      .selectFrom('audit')
      .select('data')
      .where('action', '=', 'command.expire')
      .orderBy('sequence')
      .execute()
    assert.deepEqual(
      log.map(({ data }) => JSON.parse(data).id),
      given,
      location.engine,
    )
  }
})

test('invites that end together stand in the order of their labels', async () => {
  const labels = ['rack 4', 'rack 1', 'rack 5', 'rack 3', 'rack 2', 'rack 6']
  for (const location of engines.locations) {
    await using store = await openStore(location)
    for (const label of labels)
      await store.write((work) =>
        createInvite(work, clock, { label, minutes: 60, uses: 1 }, 'user:ada'),
      )
    const listed = await listInvites(store.read)
    assert.deepEqual(
      listed.map(({ label }) => label),
      labels.toSorted(),
      location.engine,
    )
  }
})

test('a way keeps its place among the others when the data key is rotated', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  const { store } = coordinator
  for (let count = 0; count < 3; count += 1) await addWay(coordinator, 'host-key', {}, 'test')
  // Long ago, and a day apart.
  const before = await listWays(coordinator)
  const moments = before.map((_, index) => (index + 1) * 86_400_000)
  await store.write(async (work) => {
    for (const [index, { id }] of before.entries())
      await work.updateTable('ways').set({ created: moments[index] }).where('id', '=', id).execute()
  })
  await rotateDataKey(coordinator, depsOf(coordinator), 'test')
  const rows = await store.read.selectFrom('ways').select(['id', 'created']).execute()
  const created = new Map(rows.map((row) => [row.id, row.created]))
  assert.deepEqual(
    (await listWays(coordinator)).map(({ id }) => created.get(id)),
    moments,
  )
})
