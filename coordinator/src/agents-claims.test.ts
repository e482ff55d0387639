import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  CopyOf,
  enrolled,
  instanceOf,
  proven,
  type TestNode,
  until,
  type World,
  world,
} from './agents-fixture.ts'
import { HeldSessions } from './agents-held.ts'
import { AgentLedger } from './agents-ledger.ts'
import { Presence } from './agents-presence.ts'
import { getCommand, orderCommand } from './commands.ts'
import { openStore } from './store.ts'

// A node whose line is lost comes to another instance while the first still believes that it is there.
// The later session counts, whatever of the earlier one is written when.

async function stored({ store }: World) {
  const row = await store.read
    .selectFrom('nodes')
    .select(['instance', 'report'])
    .executeTakeFirstOrThrow()
  return [row.instance, JSON.parse(row.report ?? '{}').uptimeSeconds]
}

/** A node that `one` has just taken in, without having written anything down since. */
async function comingBack(here: World, name: string): Promise<TestNode> {
  const node = await enrolled(here, name)
  await node.session?.[Symbol.asyncDispose]()
  await until(() => !here.first.agents.holds(node.id), 'the first session has ended')
  await here.first.agents.flush()
  node.report = { ...proven, uptimeSeconds: 10 }
  return await node.connect()
}

/** The same agent's later session at another instance. */
async function movedTo(
  url: string,
  node: TestNode,
  onInstruction?: TestNode['onInstruction'],
): Promise<CopyOf> {
  const later = new CopyOf(node)
  later.onInstruction = onInstruction ?? later.onInstruction
  later.report = { ...proven, uptimeSeconds: 20 }
  await later.connect(url)
  return later
}

async function orderFor(here: World, node: TestNode): Promise<string> {
  const { id } = await here.store.write((work) =>
    orderCommand(
      ...([work, here.clock, node.id] as const),
      { command: 'rehearse', arguments: {} },
      { twoPersonRule: false },
      'user:ada',
    ),
  )
  return id
}

const told = (node: TestNode) => node.got.filter((frame) => frame.kind === 'command').length

test('what an earlier session has left to write takes the node from no later one', async () => {
  await using here = await world()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  await using node = await comingBack(here, 'web')
  await using later = await movedTo(second.url, node)
  await second.agents.flush()
  assert.deepEqual(await stored(here), ['two', 20])
  await here.first.agents.flush()
  assert.equal(here.first.agents.holds(node.id), true)
  assert.deepEqual(await stored(here), ['two', 20])
  await later.say({ ...proven, uptimeSeconds: 21 })
  await second.agents.flush()
  assert.deepEqual(await stored(here), ['two', 21])
})

test('an earlier session says nothing any more when the later one has ended', async () => {
  await using here = await world()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  await using node = await comingBack(here, 'web')
  await using later = await movedTo(second.url, node)
  await second.agents.flush()
  await later.session?.[Symbol.asyncDispose]()
  await until(() => !second.agents.holds(node.id), 'the later session has ended')
  await second.agents.flush()
  await node.say({ ...proven, uptimeSeconds: 11 })
  await here.first.agents.flush()
  assert.deepEqual(await stored(here), [null, 20])
})

test('orders are given to the latest session, and only its word counts that they have come', async () => {
  await using here = await world()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  await using node = await comingBack(here, 'web')
  await here.first.agents.look()
  const early = await orderFor(here, node)
  const slow = Promise.withResolvers<void>()
  node.onInstruction = () => slow.promise
  await here.first.agents.look()
  await until(() => told(node) === 1, 'the first order')
  const taken = Promise.withResolvers<void>()
  await using later = await movedTo(second.url, node, async (frame) => {
    if (frame.kind === 'command') await taken.promise
  })
  await second.agents.look()
  await until(() => told(later) === 1, 'the first order once more')
  slow.resolve()
  // Its acknowledgement has come when a report that it sends afterwards is taken in.
  await node.say({ ...proven, uptimeSeconds: 12 })
  assert.equal((await getCommand(here.store.read, early)).state, 'waiting')
  await orderFor(here, node)
  await here.first.agents.look()
  await second.agents.look()
  taken.resolve()
  await until(async () => (await getCommand(here.store.read, early)).state === 'sent', 'delivery')
  await until(() => told(later) === 2, 'the second order')
  assert.equal(told(node), 1)
})

test('sessions that begin together share a commit', async () => {
  await using here = await world()
  await using stack = new AsyncDisposableStack()
  const nodes: TestNode[] = []
  for (const name of ['one', 'two', 'three', 'four', 'five'])
    nodes.push(stack.use(await enrolled(here, name)))
  const { agents } = here.first
  for (const node of nodes) await node.session?.[Symbol.asyncDispose]()
  await until(() => agents.count === 0, 'all sessions have ended')
  await agents.flush()
  const busy = Promise.withResolvers<void>()
  const { write } = here.store
  let writes = 0
  const counted: typeof write = async (work) => {
    writes += 1
    await busy.promise
    return await write(work)
  }
  Object.assign(here.store, { write: counted })
  const coming = nodes.map((node) => node.connect())
  await until(() => agents.count === nodes.length, 'all of them have come')
  busy.resolve()
  await Promise.all(coming)
  for (const node of nodes) await node.session?.deliver({ kind: 'heartbeat', sequence: 1 })
  assert.equal(writes, 2, 'the first, and all that came meanwhile')
})

test('many sessions that have moved on are asked at once, after those that are here were written down', async () => {
  await using store = await openStore({ engine: 'sqlite', path: ':memory:' })
  const clock = { now: () => 1_000, sleep: async () => undefined }
  const row = (node: string, instance: string, session: number) => ({
    ...{ node, name: node, address: '192.0.2.1', identity: '', exchange: '', wireguard: '' },
    ...{ certificate: '', phase: 'open', epoch: 0, threshold: 0, guardians: '[]', frozen: 0 },
    ...{ ports: '{}', witnessed: 0, instance, session },
  })
  const gone = ['a', 'b', 'c']
  await store.write((work) =>
    work
      .insertInto('nodes')
      .values([...gone.map((node) => row(node, 'two', 9)), row('d', 'one', 8)])
      .execute(),
  )
  const heardOf = async () =>
    (
      await store.read
        .selectFrom('nodes')
        .select('heard_at')
        .where('node', '=', 'd')
        .executeTakeFirstOrThrow()
    ).heard_at
  const everybody = Promise.withResolvers<boolean>()
  const asked = new Set<string>()
  const closed: string[] = []
  const held = new HeldSessions()
  for (const node of [...gone, 'd'])
    held.add({
      ...{ node, remote: '', openedAt: 0, heardAt: 1 },
      ...{ send: async () => undefined, deliver: async () => undefined },
      isAlive: async () => {
        assert.equal(await heardOf(), 1_000)
        asked.add(node)
        if (asked.size === gone.length) everybody.resolve(false)
        return await everybody.promise
      },
      close: (_code, _text) => void closed.push(node),
    }).number = 8
  const options = { store, clock, instance: 'one', held }
  const ledger = new AgentLedger({
    ...{ ...options, isHeld: () => true, signer: async () => undefined },
  })
  const onTwin = () => assert.fail('nobody has answered')
  await new Presence({ ...options, ledger, onTwin }).writeHeard()
  assert.deepEqual(closed.sort(), gone)
})
