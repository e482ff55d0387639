import assert from 'node:assert/strict'
import { test } from 'node:test'
import { node, now } from './doctor-fixture.ts'
import type { Node } from './node-place.ts'
import { painter } from './output.ts'
import { statusText } from './status-actions.ts'

const status: Parameters<typeof statusText>[0] = {
  ...{ state: 'running', reason: 'open', text: 'open and running', hint: '', instance: 'one' },
  ...{ identity: 'pin', name: 'fleet', alarms: [] },
}

async function shown(nodes: readonly Node[]): Promise<string> {
  return await statusText(status, nodes, painter(), now)
}

test('a node that is not connected does not count as open, and the doctor is next', async () => {
  const away = node('c3', { connected: false })
  const text = await shown([node('a1'), node('b2'), away])
  assert.match(text, /^nodes +2 of 3 open; not connected: c3$/m)
  assert.match(text, /^next +holdfast doctor$/m)
})

test('nothing is next when all are well', async () => {
  const text = await shown([node('a1'), node('b2'), node('c3'), node('old', { phase: 'left' })])
  assert.match(text, /^nodes +3 of 3 open$/m)
  assert.doesNotMatch(text, /^next/m)
})
