import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type CommandEvent, type CommandState, nextCommandState } from './command-states.ts'
import {
  approveCommand,
  type CommandOrder,
  commandRow,
  getCommand,
  noteProgress,
  noteResult,
  orderCommand,
} from './commands.ts'
import { markDelivered, openCommands } from './commands-delivery.ts'
import { expireCommands } from './commands-end.ts'
import { openStore } from './store.ts'

const node = 'n'.repeat(43)

async function world() {
  const store = await openStore({ engine: 'sqlite', path: ':memory:' })
  let now = 1_000_000
  const clock = { now: () => now, sleep: async () => undefined }
  const row = {
    node,
    name: 'web-1',
    address: '192.0.2.7',
    identity: '',
    exchange: '',
    wireguard: '',
    certificate: '',
    phase: 'open',
    epoch: 1,
    threshold: 3,
    guardians: '[]',
    frozen: 0,
    ports: '{}',
    witnessed: 0,
  }
  await store.read.insertInto('nodes').values(row).execute()
  return {
    store,
    clock,
    issueOf: async (id: string) => (await commandRow(store.read, id)).issue,
    advance: (milliseconds: number) => {
      now += milliseconds
    },
    order: (order: CommandOrder, twoPersonRule = false, by = 'user:ada') =>
      store.write((work) => orderCommand(work, clock, node, order, { twoPersonRule }, by)),
    result: (command: string, ok: boolean, from = node) =>
      store.write((work) => noteResult(work, clock, from, { kind: 'result', command, ok })),
    state: async (id: string) => (await getCommand(store.read, id)).state,
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  }
}

const status: CommandOrder = { command: 'status', arguments: {} }
const reset: CommandOrder = { command: 'reset', arguments: {}, confirmation: 'web-1' }

const events: readonly CommandEvent[] = [
  'approved',
  'approved_to_prepare',
  'prepared',
  'delivered',
  'progress',
  'succeeded',
  'failed',
  'expired',
]

test('a command that has ended stays as it is, and none acts before its approval', () => {
  const rank: Record<CommandState, number> = {
    confirm: 0,
    preparing: 0,
    waiting: 1,
    sent: 2,
    running: 3,
    expired: 4,
    done: 5,
    failed: 5,
  }
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...events), { maxLength: 20 }), (list) => {
      let state: CommandState = 'confirm'
      let approved = false
      for (const event of list) {
        const next = nextCommandState(state, event)
        assert.ok(rank[next] >= rank[state], `${state} -> ${next}`)
        if (state === 'done' || state === 'failed') assert.equal(next, state)
        if (state === 'confirm' && event.startsWith('approved')) approved = true
        if (next === 'preparing') assert.ok(approved)
        if (['waiting', 'sent', 'running'].includes(next)) assert.ok(approved)
        state = next
      }
    }),
  )
})

test('a command goes its way, and its result is written down once', async () => {
  await using here = await world()
  const { id, state } = await here.order(status)
  assert.equal(state, 'waiting')
  await here.store.write((work) => markDelivered(work, { id, node }, 0))
  assert.equal(await here.state(id), 'sent')
  await here.store.write((work) =>
    noteProgress(work, node, id, { progress: 'half', output: 'a\n' }),
  )
  await here.store.write((work) => noteProgress(work, node, id, { output: 'b\n' }))
  const running = await getCommand(here.store.read, id)
  assert.deepEqual([running.state, running.progress, running.output], ['running', 'half', 'a\nb\n'])
  assert.equal((await here.result(id, true))?.id, id)
  assert.equal(await here.result(id, true), undefined)
  assert.equal(await here.result(id, false), undefined)
  assert.equal(await here.state(id), 'done')
  const log = await here.store.read
    .selectFrom('audit')
    .select(['actor', 'outcome'])
    .orderBy('sequence')
    .execute()
  assert.deepEqual(
    log.map(({ actor, outcome }) => [actor, outcome]),
    [
      ['user:ada', 'done'],
      [`node:${node}`, 'done'],
    ],
  )
})

test("a node cannot answer for another node's command", async () => {
  await using here = await world()
  const { id } = await here.order(status)
  assert.equal(await here.result(id, true, 'm'.repeat(43)), undefined)
  await here.store.write((work) => noteProgress(work, 'm'.repeat(43), id, { output: 'x' }))
  assert.equal(await here.state(id), 'waiting')
})

test('what cannot be undone needs the name, and a second person where the manifest says so', async () => {
  await using here = await world()
  const needed = { code: 'command.confirmation_needed' }
  await assert.rejects(here.order({ command: 'reset', arguments: {} }), needed)
  await assert.rejects(here.order({ ...reset, confirmation: 'web-2' }), needed)
  await assert.rejects(here.order({ command: 'panic', arguments: { level: 2 } }), needed)
  await here.order({ command: 'panic', arguments: { level: 1 } }, true)
  const { id, state } = await here.order(reset, true)
  assert.equal(state, 'confirm')
  assert.deepEqual(
    (await openCommands(here.store.read, here.clock.now(), [node])).map(({ command }) => command),
    ['panic'],
  )
  const approve = (by: string) =>
    here.store.write((work) => approveCommand(work, here.clock, id, {}, by))
  await assert.rejects(approve('user:ada'), { code: 'command.same_person' })
  assert.equal((await approve('user:bob')).state, 'waiting')
  await assert.rejects(approve('user:eve'), { code: 'command.not_waiting_for_approval' })
  assert.equal((await here.order(reset, false)).state, 'waiting')
})

test('whatever ends with a destroyed vault waits for a second person, a leave like a reset', async () => {
  await using here = await world()
  const named = { confirmation: 'web-1' }
  const orders: CommandOrder[] = [
    { command: 'panic', arguments: { level: 2 }, ...named },
    { command: 'panic', arguments: { level: 3 }, ...named },
    { command: 'leave', arguments: {}, ...named },
    { command: 'leave', arguments: { force: true }, ...named },
  ]
  for (const order of orders)
    assert.equal((await here.order(order, true)).state, 'confirm', JSON.stringify(order))
  assert.deepEqual(await openCommands(here.store.read, here.clock.now(), [node]), [])
})

test('what nobody answered in time is given up, and a late result is still the truth', async () => {
  await using here = await world()
  const [first, second] = [await here.order(status), await here.order(reset, true)]
  here.advance(11 * 60_000)
  assert.deepEqual(await openCommands(here.store.read, here.clock.now(), [node]), [])
  assert.equal(await expireCommands(here.store, here.clock), 1)
  assert.equal(await here.state(first.id), 'expired')
  here.advance(24 * 60 * 60_000)
  assert.equal(await expireCommands(here.store, here.clock), 1)
  assert.equal(await here.state(second.id), 'expired')
  assert.equal(await expireCommands(here.store, here.clock), 0)
  const told = await here.store.read
    .selectFrom('audit')
    .select('data')
    .where('action', '=', 'command.expire')
    .orderBy('sequence')
    .execute()
  assert.deepEqual(
    told.map(({ data }) => JSON.parse(data).id),
    [first.id, second.id],
  )
  const approve = here.store.write((work) =>
    approveCommand(work, here.clock, second.id, {}, 'user:bob'),
  )
  await assert.rejects(approve, { code: 'command.not_waiting_for_approval' })
  await here.result(first.id, true)
  assert.equal(await here.state(first.id), 'done')
})

test('arguments are filled in, and a misspelt one is refused', async () => {
  await using here = await world()
  const code = 'command.arguments_invalid'
  for (const order of [
    { command: 'logs', arguments: { line: 5 } },
    { command: 'restart', arguments: {} },
    { command: 'panic', arguments: { level: 4 }, confirmation: 'web-1' },
  ] as const)
    await assert.rejects(here.order(order), { code })
  const { id } = await here.order({ command: 'logs', arguments: {} })
  const [row] = await openCommands(here.store.read, here.clock.now(), [node])
  assert.deepEqual([row?.id, JSON.parse(row?.arguments ?? '')], [id, { lines: 200 }])
})

test('output keeps its end, not its beginning', async () => {
  await using here = await world()
  const { id } = await here.order({ command: 'logs', arguments: {} })
  for (let part = 0; part < 5; part += 1)
    await here.store.write((work) =>
      noteProgress(work, node, id, { output: String(part).repeat(300_000) }),
    )
  const { output } = await getCommand(here.store.read, id)
  assert.equal(output?.length, 1_000_000)
  assert.equal(output.endsWith('4'.repeat(300_000)), true)
})

test('the number of an order rises, whatever the clock does and whoever has to approve it', async () => {
  await using here = await world()
  const early = await here.order(reset, true)
  const numbers: number[] = []
  for (const milliseconds of [0, 0, 5, -900_000, 0]) {
    here.advance(milliseconds)
    numbers.push(await here.issueOf((await here.order(status)).id))
  }
  const rising = numbers.toSorted((a, b) => a - b)
  assert.deepEqual([numbers, new Set(numbers).size], [rising, 5])
  const before = await here.issueOf(early.id)
  assert.ok(before < (numbers[0] ?? 0))
  await here.store.write((work) => approveCommand(work, here.clock, early.id, {}, 'user:bob'))
  assert.ok((await here.issueOf(early.id)) > (numbers.at(-1) ?? 0), 'drawn anew with the approval')
})

test('a store of an older backup gives numbers above those that nodes have seen', async () => {
  await using lost = await world()
  await using restored = await world()
  let seen = 0
  for (let count = 0; count < 20; count += 1) {
    lost.advance(1_000)
    seen = await lost.issueOf((await lost.order(status)).id)
  }
  restored.advance(25_000) // it has the time, and none of those rows
  assert.ok((await restored.issueOf((await restored.order(status)).id)) > seen)
})
