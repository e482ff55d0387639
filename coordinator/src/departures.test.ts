import assert from 'node:assert/strict'
import { test } from 'node:test'
import { approveCommand, type CommandRule, getCommand, orderCommand } from './commands.ts'
import { checkDeparture } from './departures.ts'
import { currentManifest } from './manifests.ts'
import { type FleetWorld, fleetWorld, type Member } from './members-fixture.ts'
import { removeNode } from './nodes.ts'
import { belowMargin, listReshares } from './reshare-shown.ts'
import { readViews, rulesOf } from './reshare-views.ts'

// Real sessions and keys; nodes that guard each other in memory.

async function guardedFleet(here: FleetWorld, count: number): Promise<Member[]> {
  const members: Member[] = []
  for (let index = 0; index < count; index += 1) members.push(await here.enrol(`node-${index}`))
  await here.until(
    async () =>
      members.every(({ set }) => set !== undefined) &&
      (await listReshares(here.store.read)).length === 0,
    'everybody is guarded',
  )
  return members
}

async function order(
  here: FleetWorld,
  member: Member,
  command: 'leave' | 'reboot',
  given: Record<string, unknown> = {},
) {
  const { name } = await here.store.read
    .selectFrom('nodes')
    .select('name')
    .where('node', '=', member.id)
    .executeTakeFirstOrThrow()
  const rule = await ruleOf(here)
  const wanted = { command, arguments: given, confirmation: name }
  return await here.store.write((work) =>
    orderCommand(work, here.clock, member.id, wanted, rule, 'user:ada'),
  )
}

/** As the routes have it. */
async function ruleOf(here: FleetWorld): Promise<CommandRule> {
  const manifest = (await currentManifest(here.coordinator))?.manifest
  assert.ok(manifest)
  await here.first.agents.flush()
  const liveness = { now: here.clock.now(), silence: here.first.agents.silence, pins: false }
  return {
    twoPersonRule: manifest.twoPersonRule,
    depart: async (work, node, kind, force) =>
      checkDeparture(await readViews(work, liveness), node, rulesOf(manifest), { kind, force }),
  }
}

async function approve(here: FleetWorld, id: string) {
  const rule = await ruleOf(here)
  return await here.store.write((work) => approveCommand(work, here.clock, id, rule, 'user:bob'))
}

const forced = async (here: FleetWorld) =>
  await here.store.read
    .selectFrom('audit')
    .select(['actor', 'action', 'data'])
    .where('action', 'in', ['node.leave_forced', 'node.reboot_forced'])
    .execute()

/** Waits until the node has left; as long as anybody still needs it, it does not know. */
async function leaves(here: FleetWorld, leaver: Member, others: readonly Member[], id: string) {
  const told = () => leaver.got.some(({ kind }) => kind === 'command')
  await here.until(() => {
    if (others.some(({ set }) => set?.guardians.includes(leaver.id))) assert.equal(told(), false)
    return told()
  }, 'it is told')
  await here.until(async () => (await getCommand(here.store.read, id)).state === 'done', 'left')
}

test('a node that leaves is told only after its wards have moved, and then it is nobody to anybody', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 5)
  const leaver = members.find((each) => members.some(({ set }) => set?.guardians.includes(each.id)))
  assert.ok(leaver)
  const others = members.filter((each) => each !== leaver)
  const { id, state } = await order(here, leaver, 'leave')
  assert.equal(state, 'preparing')
  await leaves(here, leaver, others, id)
  for (const each of others) assert.equal(each.set?.guardians.includes(leaver.id), false)
  // What the others had for it is destroyed, so that its record can go.
  await here.until(
    () => others.every((each) => (each.keys.get(leaver.id)?.size ?? 0) === 0),
    'its guardians forget it',
  )
  const liveness = { now: here.clock.now(), silence: 0 }
  await here.store.write((work) => removeNode(work, here.clock, leaver.id, liveness, 'user:ada'))
})

test('nobody leaves or reboots below threshold plus margin, unless somebody insists and is told whom it strands', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 4)
  const [one, two] = members
  assert.ok(one && two)
  await assert.rejects(order(here, one, 'leave'), (error: { code?: string; message: string }) => {
    assert.equal(error.code, 'node.needed')
    assert.match(error.message, /node-1, node-2, node-3/)
    return true
  })
  await assert.rejects(order(here, one, 'reboot'), { code: 'node.needed' })
  const rows = await here.store.read.selectFrom('commands').select('id').execute()
  assert.deepEqual(rows, [], 'what was refused was not written down')
  const insisted = await order(here, one, 'reboot', { force: true })
  assert.match(insisted.progress ?? '', /node-1, node-2, node-3/)
  const [log] = await forced(here)
  assert.equal(log?.action, 'node.reboot_forced')
  assert.equal(JSON.parse(log?.data ?? '{}').count, 3)
})

test('with two persons nobody moves until a leave is approved, and then its wards go first', async () => {
  await using here = await fleetWorld({ twoPersonRule: true })
  const members = await guardedFleet(here, 5)
  const [leaver, ...others] = members
  assert.ok(leaver)
  const { id, state } = await order(here, leaver, 'leave')
  assert.equal(state, 'confirm')
  await here.reshares.round()
  await here.first.agents.look()
  assert.deepEqual(await listReshares(here.store.read), [])
  assert.equal((await approve(here, id)).state, 'preparing')
  await leaves(here, leaver, others, id)
})

test('an approval finds out by itself whom a node strands by then', async () => {
  await using here = await fleetWorld({ twoPersonRule: true })
  const members = await guardedFleet(here, 5)
  const [one, two] = members
  assert.ok(one && two)
  const orderly = await order(here, one, 'leave')
  const insisted = await order(here, one, 'leave', { force: true })
  // In the meantime the fleet has become too small for it.
  await two.session?.[Symbol.asyncDispose]()
  await here.pass(31)
  await assert.rejects(approve(here, orderly.id), { code: 'node.needed' })
  assert.equal((await getCommand(here.store.read, orderly.id)).state, 'confirm')
  assert.deepEqual(await forced(here), [], 'nobody is stranded by what nobody has approved')
  const { state, progress } = await approve(here, insisted.id)
  assert.equal(state, 'preparing')
  assert.match(progress ?? '', /too few guardians are left for node-/)
  assert.deepEqual(
    (await forced(here)).map(({ actor, action }) => [actor, action]),
    [['user:bob', 'node.leave_forced']],
  )
})

test('of two reboots that are given at once, the second is refused while the first is under way', async () => {
  await using here = await fleetWorld({
    guardians: { count: 4, threshold: 2, margin: 1, lostMinutes: 30 },
    genesis: { peers: 4 },
  })
  const members = await guardedFleet(here, 5)
  const [one, two] = members
  assert.ok(one && two)
  const results = await Promise.allSettled([order(here, one, 'reboot'), order(here, two, 'reboot')])
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
})

test('who stands below the margin is known', async () => {
  await using here = await fleetWorld()
  const [one, ...others] = await guardedFleet(here, 4)
  assert.ok(one)
  const manifest = (await currentManifest(here.coordinator))?.manifest
  assert.ok(manifest)
  const below = async () => {
    const liveness = { now: here.clock.now(), silence: here.first.agents.silence }
    return (await belowMargin(here.store.read, manifest, liveness)).sort()
  }
  assert.deepEqual(await below(), [])
  await one.session?.[Symbol.asyncDispose]()
  await here.until(async () => (await below()).length === 3, 'three are below')
  assert.deepEqual(await below(), others.map(({ id }) => id).sort())
})

test('a forced leave does not wait for wards that nobody else can guard', async () => {
  await using here = await fleetWorld()
  const members = await guardedFleet(here, 4)
  const [one] = members
  assert.ok(one)
  one.handsOver = false
  const { id } = await order(here, one, 'leave', { force: true })
  await here.until(async () => (await getCommand(here.store.read, id)).state === 'done', 'left')
})
