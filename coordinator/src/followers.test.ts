import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { signGeneration } from '@holdfast/link'
import { createPins } from '@holdfast/seal'
import { Admission } from './agents-admission.ts'
import { proven } from './agents-fixture.ts'
import { Coordinator } from './coordinator.ts'
import { depsOf, person, place, running } from './coordinator-fixture.ts'
import { filePin } from './file-pin.ts'
import { failover } from './postgres-driver.ts'
import { rotateDataKey } from './way-changes.ts'

// An instance that has not looked yet at what another one did a moment ago.

const people = ['alice', 'bob', 'carol'].map(person)
const node = 'n'.repeat(43)

test('a node that knows a generation before this instance does is no sign of a rollback', async () => {
  await using here = await place()
  await using one = await running(here.options, people, 2)
  await using two = await Coordinator.start(here.options)
  const row = {
    ...{ node, name: 'web', address: '192.0.2.1', identity: '', exchange: '', wireguard: '' },
    ...{ certificate: '', phase: 'open', epoch: 0, threshold: 0, guardians: '[]', frozen: 0 },
    ...{ ports: '{}', witnessed: 0 },
  }
  await one.store.write((work) => work.insertInto('nodes').values(row).execute())
  const generation = await rotateDataKey(one, depsOf(one), 'test')
  assert.equal(two.header?.generation, generation - 1)
  const { cluster = '' } = one.header ?? {}
  const admission = new Admission(two, systemClock, 20)
  const hello = (seen: number) => ({
    ...({ kind: 'hello', node, protocol: 1, report: proven } as const),
    witnessed: signGeneration(one.identity.key, cluster, seen),
  })
  assert.equal((await admission.admit(node, hello(generation))).state, 'running')
  const suspicions = () =>
    two.store.read
      .selectFrom('audit')
      .select('sequence')
      .where('action', '=', 'coordinator.rollback_suspected')
      .execute()
  assert.deepEqual(await suspicions(), [])
  assert.equal((await admission.admit(node, hello(generation + 1))).state, 'recovery')
  assert.equal((await suspicions()).length, 1)
})

test('sealed by command while the machines are being asked for the key, it stays sealed', async () => {
  await using here = await place()
  await using one = await running(here.options, people, 2)
  const [asked, answered] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  let slow = false
  const pin = filePin()
  const open: typeof pin.open = async (...words) => {
    if (slow) {
      asked.resolve()
      await answered.promise
    }
    return await pin.open(...words)
  }
  await using two = await Coordinator.start({
    ...here.options,
    pins: createPins({ extra: [{ ...pin, open }] }),
  })
  assert.equal(two.state, 'running')
  await rotateDataKey(one, depsOf(one), 'test')
  slow = true
  const following = two.refresh()
  await asked.promise
  two.seal()
  answered.resolve()
  await following
  assert.equal(two.reason, 'key_missing')
})

test('requests that fail together at the old primary all find the new one', async () => {
  const gone = { connect: () => Promise.reject(new Error('gone')), end: async () => undefined }
  const client = { query: async () => undefined, release: () => undefined }
  const there = { connect: async () => client, end: async () => undefined }
  for (const count of [1, 2, 3, 8]) {
    // What the driver's pool gives is only passed on here.
    const pool = failover([gone, there] as never)
    const asked = Array.from({ length: count }, () => pool.connect())
    assert.equal((await Promise.all(asked)).length, count)
  }
})
