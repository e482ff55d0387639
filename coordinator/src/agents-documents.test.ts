import assert from 'node:assert/strict'
import { test } from 'node:test'
import { enrolled, type TestNode, until, type World, world } from './agents-fixture.ts'
import { freezeNode } from './nodes.ts'
import { publishFreeze, publishPeers } from './nodes-documents.ts'
import type { Work } from './store.ts'

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
