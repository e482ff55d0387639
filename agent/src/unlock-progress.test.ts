import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { lockedStateSchema } from '@holdfast/protocol/locked-state'
import { agentFault } from './faults.ts'
import type { GuardianSet } from './life-state.ts'
import { UnlockProgress } from './unlock-progress.ts'

// What an attempt to open tells whoever asks: guardians by their ids, other pins by their labels.

const id = (name: string) => name.padEnd(43, '0')
const set = {
  ...{ epoch: 1, threshold: 2 },
  guardians: ['a', 'b', 'c'].map((name) => ({ node: id(name), addresses: [] })),
} as unknown as GuardianSet // the rest is not read here

test('guardians and other pins that fail are told with their reasons; a threshold is not', () => {
  const progress = new UnlockProgress(systemClock)
  const fault = agentFault('agent.guardian_unreachable', 'x'.repeat(400))
  const label = 'http://tang1.example.com'
  progress.begin()
  progress.note({ path: [0, 0], pin: 'peer', label: id('a'), state: 'opened' })
  progress.note({ path: [0, 1], pin: 'peer', label: id('b'), state: 'retrying', fault })
  progress.note({ path: [1, 0], pin: 'tang', label, state: 'retrying', fault })
  progress.note({ path: [1], pin: 'sss', label: '2 of 3', state: 'failed', fault })
  const shown = progress.show(set)
  assert.deepEqual(lockedStateSchema.shape.progress.parse(shown), shown)
  assert.deepEqual(shown.answered, [id('a')])
  assert.deepEqual(
    shown.missing.map(({ guardian, reason }) => [guardian, reason.slice(0, 12)]),
    [
      [id('b'), 'agent.guardi'],
      [id('c'), 'not asked ye'],
    ],
  )
  assert.deepEqual(
    shown.failed?.map((each) => [each.pin, each.label, each.reason.length]),
    [['tang', label, 300]],
  )
  const other = 'http://tang0.example.com'
  progress.note({ path: [1, 1], pin: 'tang', label: other, state: 'failed', fault })
  const labels = progress.show(set).failed?.map((each) => each.label)
  assert.deepEqual(labels, [other, label], 'not in the order in which they failed')
  progress.note({ path: [1, 1], pin: 'tang', label: other, state: 'opened' })
  progress.note({ path: [1, 0], pin: 'tang', label, state: 'opened' })
  assert.equal(progress.show(set).failed, undefined)
})
