import assert from 'node:assert/strict'
import { test } from 'node:test'
import { portBeside } from './ports.ts'

test('of those who are to listen at the same time no two are given the same port', async () => {
  const drawn = [20_001, 20_001, 20_002, 20_001, 20_003]
  const draw = () => Promise.resolve(drawn.shift() ?? 0)
  const given = new Set<number>()
  const ports = await Promise.all([1, 2, 3].map(() => portBeside(given, draw)))
  assert.deepEqual(ports.sort(), [20_001, 20_002, 20_003])
  assert.deepEqual([...given].sort(), ports)
})
