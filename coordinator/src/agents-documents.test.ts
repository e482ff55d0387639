import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import type { DocumentFrame } from '@holdfast/link'
import { DocumentFeed } from './agents-documents.ts'
import { enrolled, type TestNode, until, type World, world } from './agents-fixture.ts'
import { HeldSessions } from './agents-held.ts'
import { freezeNode } from './nodes.ts'
import { publishFreeze, publishPeers } from './nodes-documents.ts'
import { openStore, type Work } from './store.ts'

const versions = (node: TestNode, name: string) =>
  node.got.flatMap((each) => (each.kind === 'document' && each.name === name ? [each.version] : []))

async function publisherOf({ first, clock }: World) {
  const signer = await first.agents.signer()
  assert.ok(signer)
  return { ...signer, now: clock.now() }
}

const removeLists = (work: Work) =>
  work.deleteFrom('documents').where('name', 'like', 'peers:%').execute()

test('a document arrives that is older than one of a removed node was', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const { agents } = here.first
  here.clock.move(60_000) // another instance's clock
  const ahead = await publisherOf(here)
  await here.store.write((work) => publishPeers(work, ahead, [node.id]))
  await agents.look()
  await until(() => versions(node, 'peers').length === 1, 'the list of peers')
  here.clock.move(-60_000)
  const publisher = await publisherOf(here)
  await here.store.write(async (work) => {
    await removeLists(work)
    await freezeNode(work, here.clock, node.id, 'stolen', 'user:ada')
    await publishFreeze(work, publisher)
  })
  await agents.look()
  await until(() => versions(node, 'freeze').length === 1, 'who is frozen')
  assert.ok((versions(node, 'freeze')[0] ?? 0) < (versions(node, 'peers')[0] ?? 0))
})

test('a look asks for documents only when there is a newer one', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const { agents } = here.first
  const publisher = await publisherOf(here)
  await here.store.write((work) => publishPeers(work, publisher, [node.id]))
  for (let look = 0; look < 3; look += 1) await agents.look()
  await here.store.write(removeLists)
  for (let look = 0; look < 3; look += 1) await agents.look()
  await node.session?.deliver({ kind: 'heartbeat', sequence: 1 })
  assert.deepEqual(versions(node, 'peers'), [here.clock.now()])
})

/** Sessions that hold on to what they are sent until they are let go. */
function sessions(count: number) {
  const held = new HeldSessions()
  const got = new Map<string, number[]>()
  const state = { onTheWay: 0, most: 0 }
  let stuck: (node: string) => boolean = () => false
  for (let index = 0; index < count; index += 1) {
    const node = `${index}`.padStart(43, 'n')
    got.set(node, [])
    held.add({
      ...{ node, remote: '', openedAt: 0, heardAt: 1 },
      ...{ deliver: async () => undefined, isAlive: async () => true, close: () => undefined },
      send: async (frame) => {
        assert.ok(frame.kind === 'document')
        got.get(node)?.push(frame.version)
        state.onTheWay += 1
        state.most = Math.max(state.most, state.onTheWay)
        if (stuck(node)) return await new Promise<void>(() => undefined)
        await new Promise((resolve) => setImmediate(resolve))
        state.onTheWay -= 1
      },
    })
  }
  return {
    ...{ held, got, state },
    stick: (which: typeof stuck) => {
      stuck = which
    },
  }
}

const large = (version: number): DocumentFrame => ({
  ...{ kind: 'document', name: 'freeze', version, signature: 'AA' },
  body: 'x'.repeat(900_000),
})
const onError = (error: unknown) => assert.fail(String(error))

test('a large list is on its way to few at once, and reaches all of many', async () => {
  await using store = await openStore({ engine: 'sqlite', path: ':memory:' })
  const { held, got, state } = sessions(400)
  // Nobody's patience ends, however slow the machine is.
  const clock = { now: () => 1, sleep: () => new Promise<void>(() => undefined) }
  const feed = new DocumentFeed({ store, held, clock, onError })
  await feed.sendToAll(large(1))
  assert.ok([...got.values()].every((versions) => versions.length === 1))
  assert.equal(state.most, 74, '64 MiB of it')
  await feed.sendToAll({ ...large(2), body: '{}' })
  assert.equal(state.most, 400, 'a small one goes to all at once')
})

test('agents that take nothing keep nobody else waiting, and an older list gives way', async () => {
  await using store = await openStore({ engine: 'sqlite', path: ':memory:' })
  const { held, got, stick } = sessions(400)
  const nodes = [...got.keys()]
  const stuck = new Set(nodes.filter((_, index) => index % 4 === 0))
  stick((node) => stuck.has(node))
  // Nobody's patience is longer than the others need to take it.
  const clock = { now: () => 1, sleep: () => systemClock.sleep(50) }
  const feed = new DocumentFeed({ store, held, clock, onError })
  await feed.sendToAll(large(1))
  assert.ok([...got.values()].every((versions) => versions.length === 1))
  const older = feed.sendToAll(large(2))
  await Promise.all([feed.sendToAll(large(3)), older])
  assert.ok([...got.values()].every((versions) => versions.at(-1) === 3))
  const took = [...got.values()].filter((versions) => versions.includes(2)).length
  assert.equal(took, 74, 'those to whom it had been sent')
})
