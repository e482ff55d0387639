import assert from 'node:assert/strict'
import { test } from 'node:test'

import { verifyAudit } from './audit.ts'

import { type FleetWorld, fleetWorld, type Member } from './members-fixture.ts'

import { listReshares } from './reshare-shown.ts'

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
