import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defined } from './defined.ts'

test('only what is undefined is left out', () => {
  const maybe: { name?: string; count: number | undefined; kept: null } = {
    count: undefined,
    kept: null,
  }
  const result: { name?: string; count?: number; kept: null } = defined({
    name: maybe.name,
    count: maybe.count,
    kept: maybe.kept,
  })
  assert.deepEqual(Object.keys(result), ['kept'])
  assert.deepEqual(defined({ zero: 0, empty: '', no: false }), { zero: 0, empty: '', no: false })
})
