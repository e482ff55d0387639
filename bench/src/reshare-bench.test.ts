import assert from 'node:assert/strict'
import { test } from 'node:test'
import { above, figuresOf } from './bench-fixture.ts'

test('wards of a lost guardian are all moved', async () => {
  const figures = await figuresOf('reshare', 10)
  const { lost, wards, notMoved } = figures
  assert.deepEqual({ lost, wards, notMoved }, { lost: 2, wards: 10, notMoved: 0 })
  above(figures, 'firstSeconds', 'lastSeconds', 'coordinatorCpuMsPerWard')
})
