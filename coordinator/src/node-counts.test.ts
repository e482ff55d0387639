import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { place } from './coordinator-fixture.ts'
import { NodeCounter } from './node-counts.ts'
import { openStore } from './store.ts'

const row = (node: string) => ({
  ...{ node, name: node, address: '192.0.2.1', identity: '', exchange: '', wireguard: '' },
  ...{ certificate: '', phase: 'locked', epoch: 0, threshold: 0, guardians: '[]', frozen: 0 },
  ...{ ports: '{}', witnessed: 0 },
})

test('nodes are counted at most every two seconds, also after the clock was set back', async () => {
  await using here = await place()
  await using store = await openStore(here.options.store)
  let now = Date.now()
  const counter = new NodeCounter(store, { ...systemClock, now: () => now })
  const add = (node: string) =>
    store.write((work) => work.insertInto('nodes').values(row(node)).execute())
  await add('one')
  assert.deepEqual(await counter.count(), { total: 1, connected: 0, locked: 1 })
  await add('two')
  assert.equal((await counter.count()).total, 1)
  now -= 3_600_000
  assert.equal((await counter.count()).total, 2)
  await add('three')
  now += 2_000
  assert.equal((await counter.count()).total, 3)
})
