import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compare, serverComparisons } from './result.ts'
import { judge, targets } from './targets.ts'

const rounds = (requestsPerSecond: number, p99: number) => [
  { requestsPerSecond, cpuMicrosPerRequest: 1, p99 },
]
const result = (ours: number, p99: number) =>
  compare(
    'keyserver/p521/new-connection',
    rounds(ours, p99),
    { 'tangd-exec': rounds(100, 40), 'tangd-fork': null },
    serverComparisons,
  )

test('a target is met, not met, failed or not measured, never silently left out', () => {
  const verdicts = (ours: number, p99: number) =>
    judge([result(ours, p99)]).map(({ verdict }) => verdict)
  assert.deepEqual(verdicts(1000, 10), ['met', 'not measured', 'met'])
  assert.deepEqual(verdicts(999, 10.1), ['not met', 'not measured', 'not met'])
  assert.deepEqual(verdicts(499, 400), ['failed', 'not measured', 'not met'])
})

test('every target names one bound', () => {
  for (const { says, atLeast, atMost } of targets) {
    assert.ok((atLeast === undefined) !== (atMost === undefined), says)
  }
})
