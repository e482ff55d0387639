import assert from 'node:assert/strict'
import { test } from 'node:test'
import { enrolled, type TestNode, until, type World, world } from './agents-fixture.ts'
import { nextIssue } from './command-issues.ts'
import { getCommand, orderCommand } from './commands.ts'
import { newId } from './ways.ts'

// What a look into the store costs, counted: questions, rows that came back, and transactions.

function counted({ store }: World) {
  const count = { questions: 0, rows: 0, writes: 0 }
  const { write } = store
  const read = store.read.withPlugin({
    transformQuery: ({ node }) => {
      count.questions += 1
      return node
    },
    transformResult: async ({ result }) => {
      count.rows += result.rows.length
      return result
    },
  })
  const writing: typeof write = (work) => {
    count.writes += 1
    return write(work)
  }
  Object.assign(store, { read, write: writing })
  return async (task: () => Promise<unknown>) => {
    const before = { ...count }
    await task()
    return {
      questions: count.questions - before.questions,
      rows: count.rows - before.rows,
      writes: count.writes - before.writes,
    }
  }
}

/** Orders for nodes that this instance does not hold. */
async function orderElsewhere({ store, clock }: World, count: number): Promise<void> {
  const none = { approved_by: null, finished: null, progress: null, output: null }
  await store.write(async (work) => {
    for (let index = 0; index < count; index += 1) {
      const node = `${index}`.padStart(43, 'n')
      await work
        .insertInto('commands')
        .values({
          ...{ id: newId(), node, command: 'rekey', arguments: '{}', by: 'user:ada' },
          ...{ state: 'waiting', issue: await nextIssue(work, clock.now()) },
          ...{ created: clock.now(), expires: clock.now() + 86_400_000 },
          ...{ ...none, result: null, code: null, message: null },
        })
        .execute()
    }
  })
}

const rehearse = { command: 'rehearse', arguments: {} } as const

async function orderFor(here: World, node: TestNode): Promise<string> {
  const { id } = await here.store.write((work) =>
    orderCommand(work, here.clock, node.id, rehearse, { twoPersonRule: false }, 'user:ada'),
  )
  return id
}

const told = (node: TestNode) => node.got.filter((frame) => frame.kind === 'command').length

test('a look asks once for what is new, and reads nothing that waits for nodes elsewhere', async () => {
  await using here = await world()
  await using _node = await enrolled(here, 'one')
  const { agents } = here.first
  await agents.look()
  const costs = counted(here)
  const look = () => costs(() => agents.look())
  const usual = await look()
  for (const more of [1, 10, 989]) {
    await orderElsewhere(here, more)
    const first = await look()
    assert.deepEqual([first.questions, first.writes], [usual.questions + 1, 0], 'whose they are')
    assert.deepEqual(await look(), usual, 'the highest number, and nothing else')
  }
})

test('one question and one reading of the key serve all the nodes of a look', async () => {
  await using here = await world()
  await using stack = new AsyncDisposableStack()
  const nodes: TestNode[] = []
  for (const name of ['one', 'two', 'three', 'four'])
    nodes.push(stack.use(await enrolled(here, name)))
  const { agents } = here.first
  await agents.look()
  const readings = async () => {
    const rows = await here.store.read
      .selectFrom('audit')
      .select('sequence')
      .where('action', '=', 'secret.read')
      .execute()
    return rows.length
  }
  const costs = counted(here)
  const questions: number[] = []
  for (const some of [nodes.slice(0, 1), nodes]) {
    const before = await readings()
    for (const node of some) await orderFor(here, node)
    questions.push((await costs(() => agents.look())).questions)
    assert.equal((await readings()) - before, 1)
    await until(async () => (await openIn(here)).length === 0, 'all are delivered')
  }
  assert.equal(questions[0], questions[1])
  assert.deepEqual(nodes.map(told), [2, 1, 1, 1])
})

async function openIn({ store }: World) {
  return await store.read
    .selectFrom('commands')
    .select('id')
    .where('state', '=', 'waiting')
    .execute()
}

test('an order of another version holds nobody else up', async () => {
  await using here = await world()
  await using odd = await enrolled(here, 'odd')
  await using other = await enrolled(here, 'other')
  const strange = await orderFor(here, odd)
  await here.store.write((work) =>
    work.updateTable('commands').set({ command: 'dance' }).where('id', '=', strange).execute(),
  )
  const later = await orderFor(here, odd)
  const id = await orderFor(here, other)
  await here.first.agents.look()
  for (const each of [later, id])
    await until(async () => (await getCommand(here.store.read, each)).state === 'sent', 'delivery')
  assert.deepEqual([told(odd), told(other)], [1, 1])
})

test('orders are found in a store that was put back, whatever numbers were seen before', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'one')
  here.clock.move(1_000_000_000)
  await orderElsewhere(here, 1)
  await here.first.agents.look()
  await here.store.write((work) => work.deleteFrom('commands').execute())
  here.clock.move(-1_000_000_000)
  const id = await orderFor(here, node)
  await here.first.agents.look()
  await until(async () => (await getCommand(here.store.read, id)).state === 'sent', 'delivery')
})
