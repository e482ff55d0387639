import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newId } from './ways.ts'

test('no id is taken for an option by whoever types it after a command', () => {
  const ids = Array.from({ length: 5_000 }, newId)
  assert.deepEqual(
    ids.filter((id) => !/^\w[\w-]{21}$/.test(id)),
    [],
  )
  assert.equal(new Set(ids).size, ids.length)
})
