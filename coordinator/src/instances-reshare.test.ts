import assert from 'node:assert/strict'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { instanceOf } from './agents-fixture.ts'
import { verifyAudit } from './audit.ts'
import { Coordinator } from './coordinator.ts'
import { place } from './coordinator-fixture.ts'
import { filePin } from './file-pin.ts'
import { startPostgres } from './local-postgresql.ts'
import { fleetWorld, type Member, requireOpenable } from './members-fixture.ts'
import { listReshares } from './reshare-shown.ts'
import { Reshares } from './reshares.ts'

// Two instances on one real PostgreSQL that do the duty at the same time, as fast as they can, so that
// their transactions meet; then one of them is gone.

test('two instances on PostgreSQL move a fleet together, and one of them alone moves it on', async () => {
  await using server = await startPostgres()
  const store = { engine: 'postgresql', url: server.url } as const
  await using here = await fleetWorld({}, { store })
  await using joined = await place()
  for (const name of ['identity.pem', 'host.key', 'initialised'])
    await cp(join(here.directory, name), join(joined.directory, name))
  await using coordinator = await Coordinator.start({
    ...{ directory: joined.directory, store, clock: here.clock },
    pins: createPins({ extra: [filePin()] }),
  })
  await using second = await instanceOf(coordinator, here.clock, 'two')
  const { clock } = here
  const other = new Reshares({ coordinator, agents: second.agents, clock })
  const members: Member[] = []
  for (const name of ['one', 'two', 'three', 'four', 'five']) members.push(await here.enrol(name))
  for (const member of members.slice(2)) await member.again(second.url)
  const until = async (round: () => Promise<unknown>, holds: () => Promise<boolean>) => {
    for (let attempt = 0; attempt < 6000; attempt += 1) {
      await round()
      requireOpenable(here.members)
      if (await holds()) return
      await systemClock.sleep(10)
    }
    throw new Error('it never came to its end')
  }
  const both = async () => {
    await Promise.all([here.reshares.round(), other.round()])
    await Promise.all([here.first.agents.look(), second.agents.look()])
  }
  const settled = async (epoch: number) =>
    members.every(({ set }) => set?.guardians.length === 3 && set.epoch === epoch) &&
    (await listReshares(here.store.read)).length === 0
  await until(both, () => settled(1))
  // A month later all of it again, and now the first one dies in the middle.
  await here.pass(30 * 24 * 60)
  await second.agents.writeHeard()
  await until(both, async () => {
    const under = await listReshares(here.store.read)
    return under.some(({ state }) => state !== 'planned')
  })
  here.first.cut()
  await here.first.agents[Symbol.asyncDispose]()
  for (const member of members.slice(0, 2)) await member.again(second.url)
  const alone = async () => {
    await other.round()
    await second.agents.look()
  }
  await until(alone, () => settled(2))
  assert.equal((await verifyAudit(here.store.read)).intact, true)
})
