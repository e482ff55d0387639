import assert from 'node:assert/strict'
import { test } from 'node:test'
import { enrolled, proven, type World, world } from './agents-fixture.ts'
import { AgentLedger } from './agents-ledger.ts'

// What is written of agents' reports when the store or a later session refuses them: only what was
// written down counts as a move to other guardians.

/** A ledger of its own for an enrolled node, over a store that can be made to refuse. */
async function ledgerOf(here: World, node: string) {
  const row = () =>
    here.store.read
      .selectFrom('nodes')
      .select(['guardians', 'session'])
      .where('node', '=', node)
      .executeTakeFirstOrThrow()
  await here.first.agents.flush() // what it has said so far is not said after this
  const state = { refuse: async () => undefined as unknown }
  const { engine, read } = here.store
  const ledger = new AgentLedger({
    store: {
      ...{ engine, read, snapshot: () => here.store.snapshot() },
      write: async (work) => {
        await state.refuse()
        return await here.store.write(work)
      },
      [Symbol.asyncDispose]: async () => undefined,
    },
    clock: here.clock,
    instance: 'one',
    isHeld: () => true,
    signer: async () => undefined,
  })
  let session = Number((await row()).session)
  return {
    state,
    /** What the store has of the guardians that the node names now. */
    say: async (name: string) => {
      ledger.note(node, session, { report: { ...proven, guardians: [name] } })
      await ledger.flush()
      return (await row()).guardians === JSON.stringify([name])
    },
    /** The node comes again, at another instance. */
    comesAgain: async () => {
      session += 1
      await here.store.write(async (work) => {
        await work.updateTable('nodes').set({ session }).where('node', '=', node).execute()
      })
    },
  }
}

type Ledger = Awaited<ReturnType<typeof ledgerOf>>

/** How many moves are believed at once. */
async function movesLeft({ say }: Ledger): Promise<number> {
  for (let turn = 0; turn < 40; turn += 1)
    if (!(await say(`${turn}`.padStart(43, 'm')))) return turn
  return Number.POSITIVE_INFINITY
}

test('a report that could not be written is written later, and is one move however often it was tried', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const ledger = await ledgerOf(here, node.id)
  const name = 'a'.repeat(43)
  ledger.state.refuse = () => Promise.reject(new Error('the store is away'))
  for (let turn = 0; turn < 20; turn += 1) await assert.rejects(ledger.say(name), /is away/)
  ledger.state.refuse = async () => undefined
  assert.equal(await ledger.say(name), true, 'it waits for nothing once the store is back')
  assert.equal(await movesLeft(ledger), 9)
})

test('a report of a session that has ended meanwhile changes nothing and is no move', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const ledger = await ledgerOf(here, node.id)
  for (let turn = 0; turn < 20; turn += 1) {
    ledger.state.refuse = async () => {
      ledger.state.refuse = async () => undefined
      await ledger.comesAgain()
    }
    assert.equal(await ledger.say('b'.repeat(43)), false)
  }
  assert.equal(await movesLeft(ledger), 10)
})
