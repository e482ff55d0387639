import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'

import { instanceOf } from './agents-fixture.ts'
import { verifyAudit } from './audit.ts'

import { type FleetWorld, fleetWorld, type Member, requireOpenable } from './members-fixture.ts'

import { freezeNode, frozenNodes, removeNode } from './nodes.ts'
import { listReshares } from './reshare-shown.ts'
import { Reshares } from './reshares.ts'

// Real sessions, real keys and signatures, and nodes that guard each other in memory.

async function fleetOf(here: FleetWorld, ...names: string[]): Promise<Member[]> {
  const members: Member[] = []
  for (const name of names) members.push(await here.enrol(name))
  return members
}

const guarded = (members: Iterable<Member>, count = 3) =>
  [...members].every(({ set }) => set?.guardians.length === count)

const idleNow = async (here: FleetWorld) => (await listReshares(here.store.read)).length === 0

async function actions(here: FleetWorld): Promise<string[]> {
  const rows = await here.store.read.selectFrom('audit').select('action').execute()
  assert.equal((await verifyAudit(here.store.read)).intact, true)
  return rows.map(({ action }) => action)
}

test('when enough peers have joined, every genesis node moves to guardians by itself', async () => {
  await using here = await fleetWorld()
  const [one, two, three] = await fleetOf(here, 'one', 'two', 'three')
  for (let round = 0; round < 5; round += 1) await here.reshares.round()
  assert.deepEqual([one?.set, two?.set, three?.set], [undefined, undefined, undefined])
  await here.enrol('four')
  await here.until(() => guarded(here.members.values()), 'everybody is guarded')
  await here.until(() => idleNow(here), 'it has come to its end')
  for (const { id, set } of here.members.values()) {
    assert.deepEqual([set?.epoch, set?.threshold], [1, 2])
    assert.equal(set?.guardians.includes(id), false)
  }
  const names = await actions(here)
  for (const name of ['reshare.begin', 'reshare.order', 'reshare.done'])
    assert.equal(names.filter((each) => each === name).length, 4, name)
})

test('a node without peers to its name waits for its first guardians before it formats', async () => {
  await using here = await fleetWorld()
  await fleetOf(here, 'one', 'two', 'three', 'four')
  const waiting = await here.enrol('waiting')
  assert.deepEqual([waiting.enrolment?.genesis, waiting.report.phase], [false, 'enrolling'])
  await here.until(() => waiting.set !== undefined, 'the first guardians')
  await here.until(async () => {
    const row = await here.store.read
      .selectFrom('enrolments')
      .select('state')
      .where('node', '=', waiting.id)
      .executeTakeFirst()
    return row?.state === 'enrolled'
  }, 'it is enrolled')
})

test('guardians are spread over failure domains, and tunnels are there before the order', async () => {
  await using here = await fleetWorld()
  for (const [name, domain] of [
    ['a1', 'a'],
    ['a2', 'a'],
    ['b1', 'b'],
    ['b2', 'b'],
    ['c1', 'c'],
  ] as const)
    await here.enrol(name, domain)
  await here.until(() => guarded(here.members.values()), 'everybody is guarded')
  await here.until(() => idleNow(here), 'it has come to its end')
  const rows = await here.store.read.selectFrom('nodes').select(['node', 'domain']).execute()
  const domainOf = new Map(rows.map(({ node, domain }) => [node, domain]))
  for (const member of here.members.values()) {
    const domains = new Set(member.set?.guardians.map((id) => domainOf.get(id)))
    assert.equal(domains.size, domainOf.get(member.id) === 'c' ? 2 : 3)
    const order = member.got.findLastIndex(({ kind }) => kind === 'reshare')
    const before = member.got
      .slice(0, order)
      .findLast((each) => each.kind === 'document' && each.name === 'peers')
    assert.ok(before?.kind === 'document')
    const peers = JSON.parse(before.body).peers.map(({ node }: { node: string }) => node)
    for (const guardian of member.set?.guardians ?? []) assert.ok(peers.includes(guardian))
  }
})

async function guardedFleet(here: FleetWorld, ...names: string[]): Promise<Member[]> {
  const members = await fleetOf(here, ...names)
  await here.until(() => guarded(members), 'everybody is guarded')
  await here.until(() => idleNow(here), 'it has come to its end')
  return members
}

const holdsKeysOf = (guardian: Member, ward: Member) => [
  ...(guardian.keys.get(ward.id)?.keys() ?? []),
]

test('the wards of a guardian that is silent for long move to others, and it is told when it is back', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 'one', 'two', 'three', 'four', 'five')
  const lost = members.find((each) => members.some(({ set }) => set?.guardians.includes(each.id)))
  assert.ok(lost)
  const wards = members.filter(({ set }) => set?.guardians.includes(lost.id))
  await lost.session?.[Symbol.asyncDispose]()
  for (const minutes of [5, 24]) {
    await here.pass(minutes)
    for (let round = 0; round < 3; round += 1) await here.reshares.round()
    assert.ok(
      wards.every(({ set }) => set?.epoch === 1),
      `after ${minutes} minutes`,
    )
  }
  await here.pass(2)
  await here.until(
    () => wards.every(({ set }) => set?.guardians.includes(lost.id) === false),
    'moved',
  )
  await here.until(() => idleNow(here), 'it has come to its end')
  for (const ward of wards) {
    assert.deepEqual(holdsKeysOf(lost, ward), [1], 'it could not be told')
    for (const other of members)
      if (other !== lost) assert.equal(holdsKeysOf(other, ward).includes(1), false)
  }
  await lost.again()
  await here.until(() => wards.every((ward) => holdsKeysOf(lost, ward).length === 0), 'it forgets')
  await here.until(async () => {
    const rows = await here.store.read.selectFrom('ward_keys').select('state').execute()
    return rows.every(({ state }) => state === 'made')
  }, 'nothing is left to be done')
})

test('who refuses again and again is written down once', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 'one', 'two', 'three', 'four')
  const [liar] = members
  const ward = members.find(({ set }) => set?.guardians.includes(liar?.id ?? ''))
  assert.ok(liar?.session && ward?.set)
  const { id, epoch } = ward.set
  const junk = {
    kind: 'ward-key',
    ward: ward.id,
    epoch,
    key: { kty: 'junk' },
    signature: '',
  } as const
  const refusal = { kind: 'result', command: id, ok: false, code: 'agent.internal' } as const
  for (let count = 0; count < 5; count += 1) {
    await liar.session.deliver(junk)
    await ward.session?.deliver(refusal)
  }
  const rows = await here.store.read.selectFrom('audit').select('action').execute()
  const told = rows.filter(({ action }) => /^reshare\.(key|order)_refused$/.test(action))
  assert.deepEqual(told, [])
})

test('whoever is frozen or removed does not stay a guardian', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 'one', 'two', 'three', 'four', 'five')
  const [stolen] = members
  assert.ok(stolen)
  await here.store.write((work) => freezeNode(work, here.clock, stolen.id, 'stolen', 'user:ada'))
  const others = members.slice(1)
  await here.until(
    () => others.every(({ set }) => set?.guardians.includes(stolen.id) === false),
    'nobody has it as a guardian',
  )
  assert.equal(stolen.set?.epoch, 1, 'a frozen node does not move')
  await here.until(() => idleNow(here), 'it has come to its end')
  await stolen.session?.[Symbol.asyncDispose]()
  const liveness = { now: here.clock.now(), silence: 0 }
  await here.store.write((work) => removeNode(work, here.clock, stolen.id, liveness, 'user:ada'))
  here.members.delete(stolen.id)
  const guardians = members.filter(({ id }) => stolen.set?.guardians.includes(id))
  const frozen = async () => (await frozenNodes(here.store.read)).map(({ node }) => node)
  assert.deepEqual(await frozen(), [stolen.id], 'frozen as long as there are keys of it')
  await here.until(
    () => guardians.every((each) => holdsKeysOf(each, stolen).length === 0),
    'its guardians destroy its keys',
  )
  await here.until(async () => (await frozen()).length === 0, 'and no longer')
})

/** Nothing that is under way waits for anybody but this one, as a guardian or as a ward. */
async function onlyWaitsFor({ store }: FleetWorld, { id }: Member): Promise<boolean> {
  const { read } = store
  const keys = await read.selectFrom('ward_keys').select(['guardian', 'state']).execute()
  const silent = keys.filter(({ state }) => state === 'asked' || state === 'retiring')
  const moving = await read.selectFrom('reshares').select(['ward', 'state']).execute()
  const ordered = moving.filter(({ state }) => state === 'ordered')
  return silent.every(({ guardian }) => guardian === id) && ordered.every(({ ward }) => ward === id)
}

test('a guardian that keeps silent is passed over, and what was tried does no harm', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 'one', 'two', 'three', 'four', 'five')
  const [deaf] = members
  assert.ok(deaf)
  const wards = members.filter(({ set }) => set?.guardians.includes(deaf.id))
  assert.ok(wards.length > 0)
  deaf.deaf = true
  await here.pass(30 * 24 * 60)
  const moved = () => wards.every(({ set }) => set?.guardians.includes(deaf.id) === false)
  for (let minute = 0; minute < 10 && !moved(); minute += 1) {
    await here.until(() => onlyWaitsFor(here, deaf), 'everybody else has answered')
    await here.pass(1)
  }
  assert.equal(moved(), true)
  const failed = await here.store.read
    .selectFrom('reshares')
    .select(['code', 'blamed'])
    .where('state', '=', 'failed')
    .execute()
  assert.ok(failed.length > 0)
  for (const { code, blamed } of failed)
    assert.deepEqual([code, JSON.parse(blamed)], ['reshare.guardian_silent', [deaf.id]])
  deaf.deaf = false
  await deaf.again()
  await here.until(() => deaf.set?.epoch !== 1, 'once it hears, it moves as well')
})

test('a key that the guardian has not signed is refused and written down', async () => {
  await using here = await fleetWorld()
  const members = await fleetOf(here, 'one', 'two', 'three', 'four')
  const [liar] = members
  assert.ok(liar)
  liar.cluster = 'x'.repeat(22)
  await here.until(async () => (await actions(here)).includes('reshare.key_refused'), 'a refusal')
  await here.until(async () => (await actions(here)).includes('reshare.fail'), 'its end')
  const row = await here.store.read
    .selectFrom('reshares')
    .select(['code', 'blamed'])
    .where('state', '=', 'failed')
    .executeTakeFirst()
  assert.deepEqual(
    [row?.code, row?.blamed],
    ['reshare.guardian_refused', JSON.stringify([liar.id])],
  )
})

test('shares are made anew after their time, once', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 'one', 'two', 'three', 'four')
  const sets = members.map(({ set }) => set?.guardians)
  await here.pass(31 * 24 * 60)
  await here.until(() => members.every(({ set }) => set?.epoch === 2), 'the second epoch')
  await here.until(() => idleNow(here), 'it has come to its end')
  assert.deepEqual(
    members.map(({ set }) => set?.guardians),
    sets,
    'the same guardians with new keys',
  )
  for (let round = 0; round < 5; round += 1) await here.reshares.round()
  assert.ok(
    members.every(({ set }) => set?.epoch === 2),
    'and that is all',
  )
})

test('no more move at once than may, and a ward that is away holds nobody up', async () => {
  await using here = await fleetWorld({}, { atOnce: 2 })
  const members = await fleetOf(here, 'one', 'two', 'three', 'four', 'five', 'six')
  const under = async () =>
    (await listReshares(here.store.read)).filter(
      ({ state }) => state === 'preparing' || state === 'ordered',
    ).length
  let most = 0
  await here.until(async () => {
    most = Math.max(most, await under())
    return guarded(members)
  }, 'everybody is guarded')
  assert.equal(most, 2)
})

test('plans that can only wait hold nobody back who is less urgent', async () => {
  await using here = await fleetWorld({}, { atOnce: 1 })
  for (const name of ['a1', 'a2', 'a3', 'a4']) await here.enrol(name, 'a')
  const crowd = [...here.members.values()]
  await here.until(() => guarded(crowd), 'everybody is guarded')
  await here.until(() => idleNow(here), 'it has come to its end')
  // Everybody would be better off with the one in the other domain, which has failed lately.
  const other = await here.enrol('b1', 'b')
  const blame = async (id: string) => {
    const now = here.clock.now()
    const row = { id, ward: 'nobody', cause: 'join', state: 'failed', epoch: 0, threshold: 0 }
    const rest = { guardians: '[]', created: now, since: now, blamed: JSON.stringify([other.id]) }
    await here.store.write((work) =>
      work
        .insertInto('reshares')
        .values({ ...row, ...rest })
        .execute(),
    )
  }
  await blame('before')
  const planned = async () =>
    (await listReshares(here.store.read)).map(({ state }) => state).join() ===
    Array(4).fill('planned').join()
  await here.until(
    async () => other.set?.epoch === 1 && (await planned()),
    'it is guarded itself, and all others wait',
  )
  await here.pass(31 * 24 * 60)
  await blame('after')
  await here.until(() => other.set?.epoch === 2, 'its own set is made anew')
  assert.deepEqual(
    crowd.map(({ set }) => set?.epoch),
    [1, 1, 1, 1],
  )
  await here.until(planned, 'the others still wait')
})

test('a look asks as much of the store for many nodes that have left as for none', async () => {
  await using here = await fleetWorld()
  await fleetOf(here, 'one', 'two', 'three', 'four')
  await here.until(() => guarded(here.members.values()), 'everybody is guarded')
  await here.until(() => idleNow(here), 'it has come to its end')
  const { store } = here
  let asked = 0
  const read = store.read.withPlugin({
    transformQuery: ({ node }) => {
      asked += 1
      return node
    },
    transformResult: async ({ result }) => result,
  })
  const counted = new Proxy(here.coordinator, {
    get: (target, name) =>
      name === 'store' ? { ...store, read } : Reflect.get(target, name, target),
  })
  const { agents } = here.first
  const reshares = new Reshares({ coordinator: counted, agents, clock: here.clock })
  const questions = async () => {
    const before = asked
    await reshares.round()
    return asked - before
  }
  await questions()
  await store.write(async (work) => {
    for (let index = 0; index < 30; index += 1) {
      const node = `${index}`.padStart(43, 'n')
      const row = { node, name: `left-${index}`, address: '192.0.2.1', identity: '', exchange: '' }
      const state = { phase: 'left', epoch: 0, threshold: 0, guardians: '[]', frozen: 0 }
      const rest = { wireguard: '', certificate: '', ports: '{}', witnessed: 0 }
      await work
        .insertInto('nodes')
        .values({ ...row, ...state, ...rest })
        .execute()
    }
  })
  const many = await questions()
  assert.ok(many > 0)
  await store.write((work) => work.deleteFrom('nodes').where('phase', '=', 'left').execute())
  const none = await questions()
  assert.ok(many <= none + 1, `${many} questions, and ${none} without them`)
})

test('two instances share the work, and when one dies the other goes on', async () => {
  await using here = await fleetWorld()
  await using second = await instanceOf(here.coordinator, here.clock, 'two')
  const { coordinator, clock } = here
  const other = new Reshares({ coordinator, agents: second.agents, clock })
  const members = await fleetOf(here, 'one', 'two', 'three', 'four')
  for (const member of members.slice(2)) await member.again(second.url)
  // Both look at the same time; each tells only the agents that it holds.
  const both = async () => {
    await Promise.all([here.reshares.round(), other.round()])
    await Promise.all([here.first.agents.look(), second.agents.look()])
    requireOpenable(here.members)
  }
  for (let round = 0; round < 2; round += 1) await both()
  const begun = await listReshares(here.store.read)
  assert.ok(begun.some(({ state }) => state === 'preparing' || state === 'ordered'))
  here.first.cut()
  await here.first.agents[Symbol.asyncDispose]()
  for (const member of members.slice(0, 2)) await member.again(second.url)
  for (let round = 0; round < 6000 && !guarded(members); round += 1) {
    await other.round()
    await second.agents.look()
    requireOpenable(here.members)
    await systemClock.sleep(10)
  }
  assert.equal(guarded(members), true)
  assert.ok(
    members.every(({ set }) => set?.epoch === 1),
    'what was begun was finished',
  )
})
