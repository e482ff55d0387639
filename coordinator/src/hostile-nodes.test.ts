import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makeTunnelKey, tunnelPublicKey } from '@holdfast/link'
import { enrolled, liveness, order, TestNode, until, world } from './agents-fixture.ts'
import { enrolNode } from './enrolment-driver.ts'
import { freezeNode, removeNode } from './nodes.ts'
import { publishFreeze } from './nodes-documents.ts'

// An enrolled node that means harm, a stolen one, and a store that went back.

test('a node with a useless tunnel key, or with that of another one, is not taken in', async () => {
  await using here = await world()
  const { token } = await here.invite(2)
  const wireguard = tunnelPublicKey(makeTunnelKey())
  const enrol = async (name: string, key: string) => {
    const node = new TestNode()
    node.wireguard = key
    await node.openPort()
    await using _ = node
    await enrolNode(here.deps, order(node, token, name), 'user:ada')
  }
  await enrol('first', wireguard)
  for (const key of [wireguard, 'junk', `${wireguard}\n`])
    await assert.rejects(enrol('second', key), { code: 'enrolment.node_failed' })
  await enrol('second', tunnelPublicKey(makeTunnelKey()))
})

test('who was removed stays frozen while keys of it are left, and is not when it comes back', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  await using two = await enrolled(here, 'two')
  const signer = await here.first.agents.signer()
  assert.ok(signer)
  const publisher = { ...signer, now: here.clock.now() }
  const key = { ward: one.id, epoch: 1, guardian: two.id, identity: 'pem' }
  const row = { ...key, state: 'retiring', errand: 'e'.repeat(22) }
  await here.store.write(async (work) => {
    await work.insertInto('ward_keys').values(row).execute()
    await publishFreeze(work, publisher)
  })
  const listed = async () => {
    const { body } = await here.store.read
      .selectFrom('documents')
      .select('body')
      .where('name', '=', 'freeze')
      .executeTakeFirstOrThrow()
    return (JSON.parse(body) as { frozen: { node: string }[] }).frozen.map(({ node }) => node)
  }
  assert.deepEqual(await listed(), [], 'a member with keys that go is not frozen')
  await one.session?.[Symbol.asyncDispose]()
  await here.store.write(async (work) => {
    await removeNode(work, here.clock, one.id, { ...liveness(here), silence: -1 }, 'user:ada')
    await publishFreeze(work, publisher)
  })
  assert.deepEqual(await listed(), [one.id])
  await one.openPort()
  const { token } = await here.invite()
  await enrolNode(here.deps, order(one, token, 'one-again'), 'user:ada')
  assert.deepEqual(await listed(), [])
})

test('a freeze from a store that went back to a backup is newer than what agents have', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  const versions = () =>
    one.got
      .filter((each) => each.kind === 'document')
      .filter(({ name }) => name === 'freeze')
      .map(({ version }) => version)
  const freeze = async (reason: string) => {
    const signer = await here.first.agents.signer()
    assert.ok(signer)
    await here.store.write(async (work) => {
      await freezeNode(work, here.clock, one.id, reason, 'user:ada')
      await publishFreeze(work, { ...signer, now: here.clock.now() })
    })
    await here.first.agents.look()
  }
  for (const reason of ['first', 'second', 'third']) await freeze(reason)
  await until(() => versions().length === 3, 'three lists')
  // As a backup has it that was made before any of them.
  await here.store.write((work) => work.deleteFrom('documents').execute())
  here.clock.move(1_000)
  await freeze('after the restore')
  await until(() => versions().length === 4, 'the list of the restored store')
  assert.ok((versions()[3] ?? 0) > (versions()[2] ?? 0))
})

test('a node cannot claim an epoch after which there is none', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const { session, report } = node
  assert.ok(session)
  const claim = { ...report, epoch: Number.MAX_SAFE_INTEGER }
  void session.deliver({ kind: 'report', report: claim }).catch(() => undefined)
  await node.until(({ kind }) => kind !== 'open')
  const row = await here.store.read.selectFrom('nodes').select('epoch').executeTakeFirstOrThrow()
  assert.equal(row.epoch, node.report.epoch)
})
