import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { test } from 'node:test'
import { checkCommand, checkDocument, signGeneration } from '@holdfast/link'
import { sql } from 'kysely'
import {
  CopyOf,
  enrolled,
  idle,
  instanceOf,
  liveness,
  order,
  p256,
  proven,
  TestNode,
  until,
  type World,
  way,
  world,
} from './agents-fixture.ts'
import { verifyChain } from './audit.ts'
import { getCommand, orderCommand } from './commands.ts'
import { enrolNode } from './enrolment-driver.ts'
import { expireEnrolments, getEnrolment } from './enrolments.ts'
import { listInvites } from './invites.ts'
import { freezeNode, getNode, removeNode } from './nodes.ts'
import { publishFreeze } from './nodes-documents.ts'

test('a node is enrolled only when its vault has been proven', async () => {
  await using here = await world()
  await using node = await new TestNode().openPort()
  const { token } = await here.invite()
  const begun = await enrolNode(here.deps, order(node, token, 'web-1'), 'user:ada')
  assert.deepEqual([begun.node, begun.state], [node.id, 'sent'])
  assert.equal(node.enrolment?.address, '10.88.0.2/16')
  assert.equal(node.enrolment.holders?.threshold, 1)
  const at = async () => (await getEnrolment(here.store.read, begun.enrolment)).state
  await node.connect()
  await until(async () => (await at()) === 'formatting', 'formatting')
  await node.say({ ...idle, ways: [{ ...way, state: 'not_tried' }] })
  assert.equal(await at(), 'proving')
  await node.say({ ...proven, ways: [{ ...way, state: 'failed' }] })
  assert.equal(await at(), 'proving')
  assert.deepEqual(
    (await listInvites(here.store.read)).map(({ used }) => used),
    [0],
  )
  await node.say(proven)
  assert.equal(await at(), 'enrolled')
  assert.deepEqual(
    (await listInvites(here.store.read)).map(({ used }) => used),
    [1],
  )
  const shown = await getNode(here.store.read, node.id, liveness(here))
  assert.deepEqual([shown.name, shown.phase, shown.connected], ['web-1', 'open', true])
  // Half an hour later the address is still this node's.
  here.clock.move(3_600_000)
  await using other = await enrolled(here, 'web-2')
  assert.equal(other.enrolment?.address, '10.88.0.3/16')
  const log = await here.store.read.selectFrom('audit').selectAll().orderBy('sequence').execute()
  assert.equal(verifyChain(log).intact, true)
})

test('of two enrolments that race on one invite exactly one wins, and the other node is untouched', async () => {
  await using here = await world()
  await using one = await new TestNode().openPort()
  await using two = await new TestNode().openPort()
  const { token } = await here.invite()
  const outcomes = await Promise.allSettled([
    enrolNode(here.deps, order(one, token, 'one'), 'user:ada'),
    enrolNode(here.deps, order(two, token, 'two'), 'user:bob'),
  ])
  const lost = outcomes.filter((outcome) => outcome.status === 'rejected')
  assert.deepEqual(
    lost.map(({ reason }) => reason.code),
    ['invite.used_up'],
  )
  assert.equal([one, two].filter(({ enrolment }) => enrolment !== undefined).length, 1)
  const nodes = await here.store.read.selectFrom('nodes').select('name').execute()
  assert.equal(nodes.length, 1)
})

test('whatever fails gives the invite, the name and the address back', async () => {
  await using here = await world()
  await using node = await new TestNode().openPort()
  await using used = await new TestNode().openPort('foreign')
  const { token } = await here.invite()
  const attempt = (over: object) =>
    enrolNode(here.deps, { ...order(node, token, 'web'), ...over }, 'user:ada')
  await assert.rejects(attempt({ code: 'ABCD' }), { code: 'link.code_malformed' })
  await assert.rejects(attempt({ code: 'ABCD-EFGH-JKMN-PQRS' }), {
    code: 'link.enrolment_wrong_code',
  })
  await assert.rejects(attempt({ address: '127.0.0.1:1' }), { code: 'link.unreachable' })
  await assert.rejects(attempt({ genesis: false }), { code: 'enrolment.genesis_needed' })
  const foreign = order(used, token, 'web')
  await assert.rejects(enrolNode(here.deps, foreign, 'user:ada'), { code: 'enrolment.disk_in_use' })
  node.refuse = new Error('the disk is on fire')
  await assert.rejects(attempt({}), { code: 'link.enrolment_refused' })
  assert.deepEqual(await here.store.read.selectFrom('nodes').select('node').execute(), [])
  assert.deepEqual(await here.store.read.selectFrom('leases').select('node').execute(), [])
  node.refuse = undefined
  assert.equal((await attempt({})).state, 'sent')
  const failed = await here.store.read
    .selectFrom('enrolments')
    .select('code')
    .where('state', '=', 'failed')
    .execute()
  assert.equal(failed.length, 5)
})

test('a node that goes back to the factory, or never comes, frees what it held', async () => {
  await using here = await world()
  const { token } = await here.invite(2)
  await using gone = await new TestNode().openPort()
  const begun = await enrolNode(here.deps, order(gone, token, 'gone'), 'user:ada')
  await gone.connect()
  gone.report = { ...idle, phase: 'factory', lastErrors: ['the disk has a foreign header'] }
  gone.session?.deliver({ kind: 'report', report: gone.report }).catch(() => undefined)
  await gone.until(
    (state) => state.kind === 'waiting' && /removed|unknown/.test(state.cause.message),
  )
  const row = await getEnrolment(here.store.read, begun.enrolment)
  assert.deepEqual([row.state, row.message], ['failed', 'the disk has a foreign header'])
  await using silent = await new TestNode().openPort()
  await enrolNode(here.deps, order(silent, token, 'silent'), 'user:ada')
  assert.equal(await expireEnrolments(here.store, here.clock), 0)
  here.clock.move(31 * 60_000)
  assert.equal(await expireEnrolments(here.store, here.clock), 1)
  assert.deepEqual(
    (await listInvites(here.store.read)).map((each) => [each.used, each.reserved]),
    [[0, 0]],
  )
  assert.deepEqual(await here.store.read.selectFrom('nodes').select('node').execute(), [])
})

test('a name or a node that is there already is refused', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const { token } = await here.invite()
  await using other = await new TestNode().openPort()
  await assert.rejects(enrolNode(here.deps, order(other, token, 'web'), 'user:ada'), {
    code: 'enrolment.name_taken',
  })
  await assert.rejects(enrolNode(here.deps, order(node, token, 'other'), 'user:ada'), {
    code: 'enrolment.node_known',
  })
  assert.equal((await getNode(here.store.read, node.id, liveness(here))).name, 'web')
})

const statusOrder = { command: 'logs', arguments: { lines: 20 } } as const
const command = (here: World, node: TestNode) =>
  here.store.write((work) =>
    orderCommand(work, here.clock, node.id, statusOrder, { twoPersonRule: false }, 'user:ada'),
  )

test('a command arrives signed, and its output, progress and result come back', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const { id } = await command(here, node)
  await here.first.agents.look()
  await until(() => node.got.some(({ kind }) => kind === 'command'), 'the command')
  const frame = node.got.find((each) => each.kind === 'command')
  assert.ok(frame && node.enrolment)
  const key = createPublicKey(node.enrolment.commandKey)
  checkCommand(key, { cluster: node.enrolment.cluster, node: node.id }, frame)
  assert.deepEqual([frame.command, frame.arguments, frame.by], ['logs', { lines: 20 }, 'user:ada'])
  await node.session?.send({ kind: 'progress', command: id, text: 'reading', done: 1, of: 2 })
  await node.session?.send({ kind: 'output', command: id, text: 'all well\n' })
  await node.session?.deliver({ kind: 'result', command: id, ok: true, data: { ways: 2 } })
  const done = await getCommand(here.store.read, id)
  assert.deepEqual(
    [done.state, done.progress, done.output, done.result],
    ['done', 'reading (1 of 2)', 'all well\n', { ways: 2 }],
  )
})

test('a command for which there was no room is sent as soon as there is', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web-1')
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  node.onInstruction = () => held
  const body = 'x'.repeat(1_000_000)
  const filling: Promise<void>[] = []
  const full = new AbortController()
  for (let version = 1; version <= 20 && !full.signal.aborted; version += 1) {
    const frame = { kind: 'document', name: 'policy', version, body, signature: 'AA' } as const
    filling.push(here.first.agents.deliver(node.id, frame).catch(() => full.abort()))
    // Its acknowledgement comes behind all of that: by then the line is empty again.
    await node.session?.deliver({ kind: 'heartbeat', sequence: version })
  }
  assert.ok(full.signal.aborted, 'the outbox is full')
  const rest = { kind: 'document', name: 'policy', version: 99, signature: 'AA' } as const
  for (let size = 500_000; size > 10; size = Math.floor(size / 2)) {
    const frame = { ...rest, body: 'x'.repeat(size) }
    filling.push(here.first.agents.deliver(node.id, frame).catch(() => undefined))
  }
  const { id } = await command(here, node)
  await here.first.agents.look()
  release()
  await Promise.all(filling)
  const commands = () => node.got.filter((frame) => frame.kind === 'command')
  assert.deepEqual(commands(), [])
  await until(async () => {
    await here.first.agents.look()
    return commands().length > 0
  }, 'the command comes')
  assert.deepEqual(
    commands().map((frame) => frame.id),
    [id],
  )
})

test('a command given while the node is away waits for it, and is not sent twice in one session', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  await node.session?.[Symbol.asyncDispose]()
  const { id } = await command(here, node)
  await here.first.agents.look()
  assert.equal((await getCommand(here.store.read, id)).state, 'waiting')
  await node.connect()
  await until(async () => (await getCommand(here.store.read, id)).state === 'sent', 'delivery')
  await here.first.agents.look()
  await here.first.agents.look()
  assert.equal(node.got.filter(({ kind }) => kind === 'command').length, 1)
})

test('when an instance dies, its agents go on at another one and nothing is lost', async () => {
  await using here = await world()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  const node = await enrolled(here, 'web', here.first.url, second.url)
  await using _node = node
  const { id } = await command(here, node)
  await here.first.agents.look()
  await until(async () => (await getCommand(here.store.read, id)).state === 'sent', 'delivery')
  here.first.cut()
  const delivered = node.session?.deliver({ kind: 'result', command: id, ok: true })
  await delivered
  assert.equal((await getCommand(here.store.read, id)).state, 'done')
  assert.equal(second.agents.holds(node.id), true)
  await second.agents.look()
  const row = await here.store.read.selectFrom('nodes').select('instance').executeTakeFirst()
  assert.equal(row?.instance, 'two')
})

test('an unfinished command comes again after a reconnection, on any instance', async () => {
  await using here = await world()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  await using node = await enrolled(here, 'web', here.first.url, second.url)
  const { id } = await command(here, node)
  await here.first.agents.look()
  await until(async () => (await getCommand(here.store.read, id)).state === 'sent', 'delivery')
  here.first.cut()
  await until(() => node.got.filter((each) => each.kind === 'command').length === 2, 'again')
  await node.session?.deliver({ kind: 'result', command: id, ok: false, code: 'agent.busy' })
  assert.deepEqual((await getCommand(here.store.read, id)).code, 'agent.busy')
})

test('heartbeats write nothing, and who was heard is written in one go', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  await here.first.agents.look()
  await here.first.agents.writeHeard()
  const written = async () => {
    const result = await sql<{ n: number }>`select total_changes() as n`.execute(here.store.read)
    return result.rows[0]?.n
  }
  const before = await written()
  for (let sequence = 1; sequence <= 50; sequence += 1)
    await node.session?.send({ kind: 'heartbeat', sequence })
  await node.session?.deliver({ kind: 'heartbeat', sequence: 51 })
  await here.first.agents.look()
  assert.equal(await written(), before)
  here.clock.move(60_000)
  await node.session?.deliver({ kind: 'heartbeat', sequence: 52 })
  await here.first.agents.writeHeard()
  assert.equal(await written(), Number(before) + 1)
  const shown = await getNode(here.store.read, node.id, liveness(here))
  assert.equal(shown.connected, true)
  here.clock.move(200_000)
  assert.equal((await getNode(here.store.read, node.id, liveness(here))).connected, false)
})

test('a copied disk that shows up at another instance is noticed by the first', async () => {
  await using here = await world()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  await using node = await enrolled(here, 'web')
  await here.first.agents.look()
  await using copy = new CopyOf(node)
  await copy.connect(second.url)
  await second.agents.look()
  here.clock.move(1_000)
  // Whoever has the copy may have this session, too, and say what it likes.
  const junk = { kind: 'incident', code: 'canary.touched', text: 'x', at: 1 } as const
  for (let said = 0; said < 40; said += 1) await node.session?.deliver(junk)
  await node.session?.deliver({ kind: 'heartbeat', sequence: 1 })
  await here.first.agents.writeHeard()
  await until(async () => {
    const rows = await here.store.read.selectFrom('audit').select('data').execute()
    return rows.some(({ data }) => data.includes('node.twin_seen'))
  }, 'the alarm')
})

test('what an older session still says changes nothing once another instance holds the node', async () => {
  await using here = await world()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  await using node = await enrolled(here, 'web')
  await here.first.agents.flush()
  const stored = async () => {
    const row = await here.store.read
      .selectFrom('nodes')
      .select(['instance', 'report'])
      .executeTakeFirstOrThrow()
    return [row.instance, JSON.parse(row.report ?? '{}').uptimeSeconds]
  }
  await node.say({ ...proven, uptimeSeconds: 10 })
  await here.first.agents.flush()
  assert.deepEqual(await stored(), ['one', 10])
  await using later = new CopyOf(node)
  later.report = { ...proven, uptimeSeconds: 20 }
  await later.connect(second.url)
  await second.agents.flush()
  assert.deepEqual(await stored(), ['two', 20])
  await node.say({ ...proven, uptimeSeconds: 11 })
  assert.equal(here.first.agents.holds(node.id), true)
  await here.first.agents.flush()
  assert.deepEqual(await stored(), ['two', 20])
  await node.session?.[Symbol.asyncDispose]()
  await until(() => !here.first.agents.holds(node.id), 'the older session has ended')
  await here.first.agents.flush()
  assert.deepEqual(await stored(), ['two', 20])
  // Its last words at an instance are taken in, even when it is gone before they are written.
  await later.say({ ...proven, uptimeSeconds: 21 })
  await later.session?.[Symbol.asyncDispose]()
  await until(() => !second.agents.holds(node.id), 'the later session has ended')
  await second.agents.flush()
  assert.deepEqual(await stored(), [null, 21])
})

test('a removed node is sent away, and its certificate is worth nothing', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  const remove = () =>
    here.store.write((work) => removeNode(work, here.clock, node.id, liveness(here), 'user:ada'))
  await assert.rejects(remove(), { code: 'node.still_here' })
  await node.say({ ...idle, phase: 'left' })
  await here.first.agents.look()
  await remove()
  here.first.agents.dismiss(node.id, 'removed')
  await node.until(
    (state) => state.kind === 'waiting' && state.cause.message.includes('node_unknown'),
  )
})

test('a freeze list reaches everybody, signed, with rising versions, and whoever comes later', async () => {
  await using here = await world()
  await using one = await enrolled(here, 'one')
  await using two = await enrolled(here, 'two')
  const freeze = async (node: TestNode, reason: string) => {
    const signer = await here.first.agents.signer()
    assert.ok(signer)
    await here.store.write(async (work) => {
      await freezeNode(work, here.clock, node.id, reason, 'user:ada')
      const publisher = { ...signer, now: here.clock.now() }
      await publishFreeze(work, publisher)
      // The same list once more is not news.
      assert.equal(await publishFreeze(work, publisher), false)
    })
    await here.first.agents.look()
  }
  await freeze(one, 'stolen')
  await freeze(two, 'stolen too')
  const lists = (node: TestNode) =>
    node.got.filter((each) => each.kind === 'document').filter(({ name }) => name === 'freeze')
  await until(() => lists(one).length === 2 && lists(two).length === 2, 'two lists each')
  const [older, newer] = lists(one)
  assert.ok(older && newer && one.enrolment && newer.version > older.version)
  checkDocument(createPublicKey(one.enrolment.commandKey), newer)
  const { frozen } = JSON.parse(newer.body)
  assert.deepEqual(
    frozen.map(({ node, reason }: { node: string; reason: string }) => [node, reason]).sort(),
    [
      [one.id, 'stolen'],
      [two.id, 'stolen too'],
    ].sort(),
  )
  await using late = await enrolled(here, 'late')
  await until(() => lists(late).length === 1, 'the list for a late node')
  assert.equal(lists(late)[0]?.version, newer.version)
})

test('guardians and wards are told of each other, and nobody else is', async () => {
  await using here = await world()
  await using ward = await enrolled(here, 'ward')
  await using guardian = await enrolled(here, 'guardian')
  await using other = await enrolled(here, 'other')
  await ward.say({ ...proven, epoch: 1, threshold: 1, guardians: [guardian.id] })
  await here.first.agents.look()
  const peers = (node: TestNode) => {
    const last = node.got
      .filter((each) => each.kind === 'document')
      .findLast(({ name }) => name === 'peers')
    return last === undefined ? undefined : JSON.parse(last.body).peers
  }
  await until(() => peers(ward) !== undefined && peers(guardian) !== undefined, 'lists of peers')
  const [toGuardian, toWard] = [peers(ward)[0], peers(guardian)[0]]
  assert.deepEqual([toGuardian.node, toGuardian.relation], [guardian.id, 'guardian'])
  assert.deepEqual([toGuardian.address, toGuardian.urls], ['10.88.0.3', ['https://127.0.0.1:9998']])
  assert.deepEqual([toWard.node, toWard.relation], [ward.id, 'ward'])
  assert.equal(peers(other), undefined)
  await assert.rejects(
    here.store.write((work) =>
      removeNode(work, here.clock, guardian.id, { ...liveness(here), silence: -1 }, 'user:ada'),
    ),
    { code: 'node.guards_others' },
  )
})

test('a proven later generation seals the coordinator, a claimed one does not', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  assert.ok(node.enrolment)
  const { cluster } = node.enrolment
  await node.session?.[Symbol.asyncDispose]()
  node.witnessed = signGeneration(p256(), cluster, 9)
  await node.connect()
  await node.until(({ kind }) => kind === 'open')
  assert.equal(here.coordinator.state, 'running')
  await node.session?.[Symbol.asyncDispose]()
  await node.connect()
  await node.until(({ kind }) => kind === 'open')
  await node.session?.[Symbol.asyncDispose]()
  node.witnessed = signGeneration(here.coordinator.identity.key, cluster, 9)
  await node.connect()
  const state = await node.until(({ kind }) => kind === 'open')
  assert.equal(state.kind === 'open' && state.welcome.state, 'recovery')
  assert.equal(here.coordinator.reason, 'rollback_suspected')
  const actions = await here.store.read.selectFrom('audit').select('action').execute()
  const names = actions.map(({ action }) => action)
  const unproven = names.filter((name) => name === 'node.witness_unproven')
  assert.equal(unproven.length, 1, 'a claim that comes again does not fill the log')
  assert.ok(names.includes('coordinator.rollback_suspected'))
})

test('a sealed coordinator keeps its agents and holds commands back', async () => {
  await using here = await world()
  await using node = await enrolled(here, 'web')
  here.coordinator.seal()
  const { id } = await command(here, node)
  await here.first.agents.look()
  assert.equal(node.state?.kind, 'open')
  assert.equal((await getCommand(here.store.read, id)).state, 'waiting')
  assert.equal(
    node.got.some(({ kind }) => kind === 'command'),
    false,
  )
})
