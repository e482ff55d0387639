import assert from 'node:assert/strict'
import { test } from 'node:test'
import { step } from '@holdfast/agent'
import { decide, needs, nextCommandState } from '@holdfast/coordinator/decisions'
import type { StateMachines } from './fleet.ts'
import { type SimulationResult, simulate } from './simulation.ts'
import { SimulationFailure } from './world.ts'

// Thousands of fleets live through hours of faults by the agent's and the coordinator's own state
// machines. Each part of the seeds is a test of its own, so that they can be told apart when they fail.

const seeds = 2_000
const parts = 8

for (let part = 0; part < parts; part += 1) {
  const first = 1 + (part * seeds) / parts
  const last = ((part + 1) * seeds) / parts
  test(`fleets ${first} to ${last} keep every rule and settle`, () => {
    const lives: SimulationResult[] = []
    for (let seed = first; seed <= last; seed += 1) lives.push(simulate({ seed }))
    // A simulation in which nothing happens would hold every rule.
    const total = (of: (life: SimulationResult) => number) =>
      lives.reduce((sum, life) => sum + of(life), 0)
    assert.ok(total(({ powerCuts }) => powerCuts) > 10 * lives.length, 'power is cut')
    assert.ok(total(({ reshares }) => reshares) > 5 * lives.length, 'wards are moved')
    assert.ok(total(({ failed }) => failed) > lives.length, 'and some attempts fail')
    assert.ok(total(({ ended }) => ended) > lives.length / 2, 'nodes are lost or leave')
    const ends = new Set(lives.flatMap(({ commands }) => Object.keys(commands)))
    for (const end of ['done', 'failed', 'expired']) assert.ok(ends.has(end), end)
  })
}

test('the same seed lives the same history', () => {
  const [one, other] = [simulate({ seed: 77 }), simulate({ seed: 77 })]
  assert.deepEqual(one.trace(), other.trace())
  assert.deepEqual({ ...one, trace: [] }, { ...other, trace: [] })
})

const defects: Record<string, { rule: RegExp; machines: Partial<StateMachines> }> = {
  'retires the old keys before the new set is proven': {
    rule: /retires epoch|too few living guardians/,
    machines: {
      decide: (reshare, facts) =>
        reshare.state === 'ordered' ? { to: 'retiring' } : decide(reshare, facts),
    },
  },
  'drops the old way in before the new one is proven': {
    rule: /nothing else is proven|no proven way in|too few living/,
    machines: {
      step: (state, event) => {
        const next = step(state, event)
        const { task } = next.state
        if (task?.kind !== 'reshare' || task.step !== 'prove') return next
        return { ...next, state: { ...next.state, task: { ...task, step: 'drop' } } }
      },
    },
  },
  'takes an older set of guardians': {
    rule: /went back from epoch|epoch \d+ of .* after epoch/,
    machines: { nextEpoch: (used, reported) => Math.max(1, Math.min(used, reported)) },
  },
  'forgets what it does at a restart': {
    rule: /quiet hours/,
    machines: {
      step: (state, event) => {
        const next = step(state, event)
        if (event.kind !== 'started') return next
        const { task: _, ...rest } = next.state
        return { ...next, state: rest }
      },
    },
  },
  'waits for a silent guardian for ever': {
    rule: /quiet hours/,
    machines: {
      decide: (reshare, facts) => {
        const decision = decide(reshare, facts)
        return reshare.state === 'preparing' && decision?.to === 'failed' ? undefined : decision
      },
    },
  },
  'orders a set before every guardian has made its key': {
    rule: /too few living|quiet hours|no proven way/,
    machines: {
      decide: (reshare, facts) =>
        reshare.state === 'preparing' ? { to: 'ordered' } : decide(reshare, facts),
    },
  },
  'does not notice that guardians are lost': {
    rule: /quiet hours: .* living guardians/,
    machines: { needs: (survey) => needs(survey).filter(({ cause }) => cause !== 'loss') },
  },
  'stays with an instance that has died': {
    rule: /quiet hours/,
    machines: { nextCoordinator: (turn) => turn },
  },
  'never gives a command up': {
    rule: /quiet hours: .* is (sent|waiting|preparing)/,
    machines: {
      nextCommandState: (state, event) =>
        event === 'expired' ? state : nextCommandState(state, event),
    },
  },
}

for (const [name, { rule, machines }] of Object.entries(defects)) {
  test(`a fleet that ${name} is found`, () => {
    const find = () => {
      for (let seed = 1; seed <= 40; seed += 1) simulate({ seed, machines })
    }
    assert.throws(find, (error) => {
      assert.ok(error instanceof SimulationFailure)
      assert.match(error.rule, rule)
      // The seed alone finds it again, and says how.
      assert.throws(() => simulate({ seed: error.seed, machines }), { message: error.message })
      assert.match(error.message, new RegExp(`replay\\.ts ${error.seed}`))
      return true
    })
  })
}
