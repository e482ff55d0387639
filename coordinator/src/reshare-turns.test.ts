import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Cause, Need, Reshare } from './reshare-plan.ts'
import { ReshareTurns } from './reshare-turns.ts'

const need = (ward: string, cause: Cause): Need => ({ ward, cause, slack: 0 })
const plan = ({ ward, cause }: Need): Reshare => ({
  ...{ id: ward, ward, cause, state: 'planned', epoch: 0, threshold: 0, guardians: [], since: 0 },
})

test('with room for all, the most urgent comes first whether it waited or not', () => {
  const turns = new ReshareTurns(3)
  const due = [need('a', 'loss'), need('b', 'join'), need('c', 'schedule')]
  for (let round = 0; round < 3; round += 1) {
    assert.deepEqual(turns.of(due, due.map(plan)), ['a', 'b', 'c'])
    turns.pass('b')
  }
  assert.deepEqual(turns.of(due, due.slice(1).map(plan)), ['b', 'c'], 'only what is planned')
})

test('of many that can only wait, each has its look before one has another, and no loss stands back', () => {
  const turns = new ReshareTurns(2)
  const joins = ['a', 'b', 'c', 'd', 'e'].map((ward) => need(ward, 'join'))
  const due = [...joins, need('z', 'schedule')]
  const looked = (needs: readonly Need[]) => {
    const wards = turns.of(needs, needs.map(plan))
    for (const ward of wards) turns.pass(ward)
    return wards.join('')
  }
  assert.deepEqual([looked(due), looked(due), looked(due)], ['ab', 'cd', 'ez'])
  assert.equal(looked(due), 'ab', 'and then anew')
  const lost = [need('e', 'loss'), ...joins.slice(0, 4)]
  assert.equal(looked(lost), 'ec')
})
