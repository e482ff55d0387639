import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { FleetRehearsal, FleetStatus } from '@holdfast/drills'
import { asItStands } from './fleet-now.ts'
import { changesOf, fleetTable } from './fleet-table.ts'

// A key server that was stopped shows at once, without waiting for the next rehearsal.

const url = (number: number) => `http://127.0.0.1:${number}`
const way = { way: 'automatic', keyslot: 1, state: 'proven' } as const
const rehearsal: FleetRehearsal = {
  at: 1000,
  ways: [
    { ...way, threshold: 2, of: 3, margin: 1, lastProof: 1000, fault: undefined },
    {
      ...way,
      way: 'recovery',
      keyslot: 0,
      threshold: 2,
      of: 3,
      margin: 1,
      lastProof: 1,
      fault: undefined,
    },
  ],
  pins: [
    ...[1, 2, 3].map((number) => ({
      ...way,
      ...{ pin: 'tang', label: url(number), lastProof: 1000, fault: undefined },
    })),
    {
      ...way,
      way: 'recovery',
      keyslot: 0,
      pin: 'person',
      label: 'alice',
      lastProof: 1,
      fault: undefined,
    },
  ],
}

function status(...stopped: number[]): FleetStatus {
  const servers = [1, 2, 3].map((number) => {
    const running = !stopped.includes(number)
    return {
      name: `server-${number}`,
      url: url(number),
      pid: running ? number : undefined,
      running,
    }
  })
  return { servers, volume: { device: '/dev/x', header: 'readable' } }
}

test('nothing changes while all of them run', () => {
  assert.equal(asItStands(rehearsal, status(), 2000), rehearsal)
})

test('a stopped server fails at once, and its way loses margin', async () => {
  const one = asItStands(rehearsal, status(2), 2000)
  assert.deepEqual(
    one.pins.map(({ state }) => state),
    ['proven', 'failed', 'proven', 'proven'],
  )
  assert.deepEqual(
    one.ways.map(({ state, margin }) => [state, margin]),
    [
      ['proven', 0],
      ['proven', 1],
    ],
  )
  const two = asItStands(rehearsal, status(1, 2), 2000)
  assert.deepEqual([two.ways[0]?.state, two.ways[0]?.margin], ['failed', -1])
  const lines = changesOf(rehearsal, one)
  assert.equal(lines.length, 2)
  assert.match(lines[1] ?? '', /tang http:\/\/127\.0\.0\.1:2: failing: server-2 is stopped$/)
  assert.deepEqual(changesOf(one, asItStands(rehearsal, status(2), 3000)), [], 'said once')
  const table = await fleetTable(one, (_tone, text) => text, 3000)
  assert.match(table, /127\.0\.0\.1:2 +failing .*server-2 is stopped/)
})

test('what the rehearsal itself found failing is not counted twice', () => {
  const [first, second] = [asItStands(rehearsal, status(3), 2000), status(3)]
  assert.deepEqual(asItStands(first, second, 3000), first)
})
