import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Fault, type FaultKind } from '@holdfast/base'
import { exitCodeOf, exitCodeOfKind, exitCodes } from './exit-codes.ts'
import { cliFault } from './faults.ts'

const kinds: Record<FaultKind, number> = {
  internal: 1,
  usage: 2,
  invalid: 3,
  refused: 4,
  unavailable: 5,
  integrity: 6,
  absent: 7,
  busy: 8,
}

test('every kind of fault has its exit code, and the codes stay', () => {
  for (const [kind, code] of Object.entries(kinds)) {
    assert.equal(exitCodeOfKind(kind as FaultKind), code) // its own keys
    assert.equal(exitCodeOf(new Fault('x.y', kind as FaultKind, 'z')), code)
  }
  assert.equal(exitCodeOf(new TypeError('a defect')), 1)
  assert.equal(exitCodeOf(cliFault('cli.interrupted', 'stopped')), 130)
})

test('no two rows share a code', () => {
  assert.equal(new Set(exitCodes.map(({ code }) => code)).size, exitCodes.length)
})

test('the operator guide shows the same table', () => {
  const page = new URL('../../docs/operator/exit-codes.md', import.meta.url)
  const text = readFileSync(page, 'utf8')
  for (const { code, name, meaning } of exitCodes) {
    assert.ok(text.includes(`| ${code} | ${name} | ${meaning} |`), `the row of ${code} differs`)
  }
})
