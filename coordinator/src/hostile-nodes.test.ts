import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { test } from 'node:test'
import { parseJson } from '@holdfast/base'
import { checkDocument, makeTunnelKey, tunnelPublicKey } from '@holdfast/link'
import { freezeDocumentSchema, mostFrozen } from '@holdfast/protocol/documents'
import { enrolled, liveness, order, proven, TestNode, until, world } from './agents-fixture.ts'
import { AgentLedger } from './agents-ledger.ts'
import { getCommand, orderCommand } from './commands.ts'
import { enrolNode } from './enrolment-driver.ts'
import { freezeNode, getNode, removeNode, unfreezeNode } from './nodes.ts'
import { changeFreeze, publishFreeze } from './nodes-documents.ts'
import type { Work } from './store.ts'

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

test('a node that does not leave when it is told to is frozen and then removed, connected or not', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  const remove = () =>
    here.store.write((work) => removeNode(work, here.clock, one.id, liveness(here), 'user:ada'))
  await here.first.agents.look()
  await assert.rejects(remove(), { code: 'node.still_here' })
  await here.store.write((work) => freezeNode(work, here.clock, one.id, 'stolen', 'user:ada'))
  await remove()
  here.first.agents.dismiss(one.id, 'removed')
  await one.until(
    (state) => state.kind === 'waiting' && state.cause.message.includes('node_unknown'),
  )
})

test('a node that names other guardians in every report is believed ten times, and then now and then', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  await using two = await enrolled(here, 'two')
  const entries = async () =>
    (await here.store.read.selectFrom('audit').select('hash').execute()).length
  const guardians = async () => {
    const { store } = here
    const row = await store.read
      .selectFrom('nodes')
      .select('guardians')
      .where('node', '=', one.id)
      .executeTakeFirstOrThrow()
    return row.guardians
  }
  await here.first.agents.look()
  const before = await entries()
  const names = [two.id, 'x'.repeat(43)]
  for (let turn = 0; turn < 40; turn += 1) {
    await one.say({ ...proven, guardians: names.slice(turn % 2) })
    await here.first.agents.flush()
  }
  assert.equal((await entries()) - before, 10, 'one reading of the key for each that counted')
  await one.say({ ...proven, guardians: [] })
  await here.first.agents.flush()
  assert.notEqual(await guardians(), '[]')
  here.clock.move(30_000)
  await here.first.agents.flush()
  assert.equal(await guardians(), '[]', 'what it said last is not lost')
})

test('what a node says of commands that are not its own neither piles up nor stands in the way', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  await using two = await enrolled(here, 'two')
  let writes = 0
  const { engine, read, snapshot } = here.store
  const ledger = new AgentLedger({
    store: {
      ...{ engine, read, snapshot },
      write: (work) => {
        writes += 1
        return here.store.write(work)
      },
      [Symbol.asyncDispose]: async () => undefined,
    },
    clock: here.clock,
    instance: 'one',
    isHeld: () => true,
    signer: async () => undefined,
  })
  const output = 'x'.repeat(60_000)
  for (let turn = 0; turn < 10; turn += 1)
    await ledger.tell(one.id, `${turn}`.padStart(22, 'c'), { output })
  assert.equal(writes, 2, 'every 256 KiB, whichever commands they are about')
  for (let turn = 0; turn < 600; turn += 1)
    await ledger.tell(one.id, `${turn}`.padStart(22, 'd'), { progress: '' })
  assert.equal(writes, 5, 'what is empty takes room, too: 600 entries, at most 200 at once')
  const { id } = await here.store.write((work) => {
    const wanted = { command: 'status', arguments: {} } as const
    return orderCommand(work, here.clock, two.id, wanted, { twoPersonRule: false }, 'user:ada')
  })
  await ledger.tell(one.id, id, { output: 'forged' })
  await ledger.tell(two.id, id, { output: 'real' })
  await ledger.flush()
  assert.equal((await getCommand(here.store.read, id)).output, 'real')
})

test('a node that cries all the time does not fill the log, however often it comes again', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  await using quiet = await enrolled(here, 'quiet')
  const cry = async (by: TestNode, times: number) => {
    const frame = { kind: 'incident', code: 'canary.touched', text: 'x', at: 1 } as const
    for (let count = 0; count < times; count += 1) await by.session?.deliver(frame)
  }
  const told = async () => {
    const rows = await here.store.read
      .selectFrom('audit')
      .select('subject')
      .where('action', '=', 'node.incident')
      .execute()
    return [node, quiet].map(({ id }) => rows.filter(({ subject }) => subject === id).length)
  }
  for (let session = 0; session < 4; session += 1) {
    await cry(node, 20)
    await node.session?.[Symbol.asyncDispose]()
    await until(() => !here.first.agents.holds(node.id), 'the session has ended')
    await node.connect()
    await node.until(({ kind }) => kind === 'open')
  }
  assert.deepEqual(await told(), [30, 0])
  await cry(quiet, 1)
  assert.deepEqual(await told(), [30, 1], 'others are heard')
  here.clock.move(60_000)
  await cry(node, 1)
  assert.deepEqual(await told(), [31, 1], 'and so is this one, a minute later')
})

test('however long the reasons are, the list of who is frozen is one that agents take', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  const ids = Array.from({ length: 560 }, (_, index) => `${index}`.padStart(43, 'n'))
  const rows = ids.map((node) => ({
    ...{ node, name: node.slice(-9), address: '192.0.2.1', identity: '', exchange: '' },
    ...{ wireguard: '', certificate: '', phase: 'open', epoch: 1, threshold: 2, frozen: 0 },
    ...{ ports: '{"peer":9998,"wireguard":51820}', witnessed: 0, guardians: '[]' },
  }))
  const signer = await here.first.agents.signer()
  assert.ok(signer)
  await here.store.write(async (work) => {
    await work.insertInto('nodes').values(rows).execute()
    for (const node of ids)
      await freezeNode(work, here.clock, node, '\u0001'.repeat(300), 'user:ada')
    await publishFreeze(work, { ...signer, now: here.clock.now() })
  })
  await here.first.agents.look()
  await until(
    () => one.got.some((frame) => frame.kind === 'document' && frame.name === 'freeze'),
    'it',
  )
  const [frame] = one.got.filter((each) => each.kind === 'document' && each.name === 'freeze')
  assert.ok(frame?.kind === 'document')
  assert.equal((JSON.parse(frame.body) as { frozen: unknown[] }).frozen.length, 560)
})

/** Writes frozen nodes into the store's records, and into no list; their rows. */
async function insertFrozen(here: Awaited<ReturnType<typeof world>>, count: number) {
  const freeze = JSON.stringify({ reason: 'r'.repeat(300), since: here.clock.now() })
  const rows = Array.from({ length: count }, (_, index) => ({
    ...{ node: `${index}`.padStart(43, 'n'), name: `stolen-${index}`, address: '192.0.2.1' },
    ...{ identity: '', exchange: '', wireguard: '', certificate: '', witnessed: 0 },
    ...{ phase: 'open', epoch: 1, threshold: 2, guardians: '[]', frozen: 1, freeze },
    ports: '{"peer":9998,"wireguard":51820}',
  }))
  await here.store.write(async (work) => {
    for (let start = 0; start < rows.length; start += 500)
      await work
        .insertInto('nodes')
        .values(rows.slice(start, start + 500))
        .execute()
  })
  return rows
}

test('as many nodes are frozen as agents take in one list, and one more is refused as a whole', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  const rows = await insertFrozen(here, mostFrozen)
  const signer = await here.first.agents.signer()
  assert.ok(signer)
  const put = (node: string) =>
    here.store.write(async (work) => {
      await freezeNode(work, here.clock, node, 'stolen', 'user:ada')
      await publishFreeze(work, { ...signer, now: here.clock.now() })
    })
  await put(rows[0]?.node ?? '')
  await here.first.agents.look()
  const lists = () => one.got.filter((each) => each.kind === 'document' && each.name === 'freeze')
  await until(() => lists().length === 1, 'the list')
  const [frame] = lists()
  assert.ok(frame?.kind === 'document' && one.enrolment)
  checkDocument(createPublicKey(one.enrolment.commandKey), frame)
  // As agents read it.
  const document = freezeDocumentSchema.parse(parseJson(frame.body, 'the list', 1_000_000))
  assert.equal(new Set(document.frozen.map(({ node }) => node)).size, mostFrozen)

  await assert.rejects(put(one.id), { code: 'node.too_many_frozen' })
  const { frozen } = await getNode(here.store.read, one.id, liveness(here))
  assert.equal(frozen, false)
  await here.first.agents.look()
  assert.equal(lists().length, 1)
  await here.store.write((work) => unfreezeNode(work, here.clock, rows[0]?.node ?? '', 'user:ada'))
  await put(one.id)
  await here.first.agents.look()
  await until(() => lists().length === 2, 'the next list')
})

test('a store that has more frozen than agents take is made shorter, and published when it fits', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  const [first, second, third] = await insertFrozen(here, mostFrozen + 3)
  assert.ok(first && second && third)
  const signer = await here.first.agents.signer()
  assert.ok(signer)
  const change = (how: (work: Work) => Promise<void>) =>
    here.store.write((work) => changeFreeze(work, { ...signer, now: here.clock.now() }, how))
  const published = async () => {
    const read = here.store.read.selectFrom('documents').select('body')
    const row = await read.where('name', '=', 'freeze').executeTakeFirst()
    return row === undefined ? undefined : freezeDocumentSchema.parse(JSON.parse(row.body))
  }
  const frozen = async (id: string) => (await getNode(here.store.read, id, liveness(here))).frozen
  const freeze = (node: string) =>
    change((work) => freezeNode(work, here.clock, node, 'stolen', 'user:ada'))
  const unfreeze = (node: string) =>
    change((work) => unfreezeNode(work, here.clock, node, 'user:ada'))

  await unfreeze(first.node)
  assert.equal(await frozen(first.node), false)
  await change((work) => removeNode(work, here.clock, second.node, liveness(here), 'user:ada'))
  await assert.rejects(frozen(second.node), { code: 'node.unknown' })
  await freeze(third.node)
  await assert.rejects(freeze(one.id), { code: 'node.too_many_frozen' })
  assert.equal(await frozen(one.id), false)
  assert.equal(await published(), undefined, 'nothing that agents would refuse')
  await unfreeze(third.node)
  const list = new Set((await published())?.frozen.map(({ node }) => node))
  assert.equal(list.size, mostFrozen)
  for (const { node } of [first, second, third]) assert.ok(!list.has(node))
})
