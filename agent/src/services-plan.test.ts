import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type PresentUnit, parseShow, planServices, stateOf } from './services-plan.ts'

type Units = Map<string, PresentUnit>

const unitNames = [
  'holdfast-service-a.service',
  'holdfast-service-b.service',
  'holdfast-service-c.service',
]
const textOf = fc.constantFrom('one', 'two')
const present: fc.Arbitrary<Units> = fc
  .dictionary(
    fc.constantFrom(...unitNames),
    fc.oneof(
      fc.record({
        text: textOf,
        active: fc.constantFrom('active', 'failed', 'inactive'),
        begun: fc.constant(true),
      }),
      fc.record({ text: textOf, active: fc.constant('inactive'), begun: fc.constant(false) }),
    ),
  )
  .map((units) => new Map(Object.entries(units)))
const wanted = fc
  .dictionary(fc.constantFrom(...unitNames), textOf)
  .map((units) => new Map(Object.entries(units)))

/** Carries a plan out on a model of systemd, up to a power cut of the agent after `steps` steps. */
function carryOut(units: Units, plan: ReturnType<typeof planServices>, steps = plan.length): Units {
  const after: Units = new Map(units)
  for (const step of plan.slice(0, steps)) {
    if (step.kind === 'write')
      after.set(step.unit, {
        ...(after.get(step.unit) ?? { active: 'inactive', begun: false }),
        text: step.text,
      })
    if (step.kind === 'remove') after.delete(step.unit)
    for (const unit of step.kind === 'stop' || step.kind === 'start' ? step.units : []) {
      const known = after.get(unit)
      assert.ok(known !== undefined, 'only a unit that is there is started or stopped')
      after.set(
        unit,
        step.kind === 'stop'
          ? { ...known, active: 'inactive', begun: false }
          : { ...known, active: 'active', begun: true },
      )
    }
  }
  return after
}

test('the plan leads to what is wanted, from anywhere, and then is empty', () => {
  fc.assert(
    fc.property(present, wanted, (units, want) => {
      const after = carryOut(units, planServices(units, want))
      assert.deepEqual(
        new Map([...after].map(([unit, { text }]) => [unit, text])),
        new Map([...want].toSorted()),
      )
      assert.deepEqual(planServices(after, want), [])
      for (const [unit, { active }] of after) {
        const before = units.get(unit)
        const left = before?.begun === true && before.text === want.get(unit)
        assert.equal(active, left ? before.active : 'active')
      }
    }),
  )
})

test('an agent that is stopped after any step ends at the same', () => {
  fc.assert(
    fc.property(present, wanted, fc.nat(12), (units, want, cut) => {
      const begun = carryOut(units, planServices(units, want), cut)
      const after = carryOut(begun, planServices(begun, want))
      assert.deepEqual(planServices(after, want), [])
      for (const unit of want.keys()) assert.ok(after.get(unit)?.begun, unit)
    }),
  )
})

test('a unit is stopped before its file goes or changes, and read before it is started', () => {
  fc.assert(
    fc.property(present, wanted, (units, want) => {
      const kinds = planServices(units, want).map(({ kind }) => kind)
      const order = ['stop', 'remove', 'write', 'reload', 'start']
      assert.deepEqual(
        kinds,
        kinds.toSorted((a, b) => order.indexOf(a) - order.indexOf(b)),
      )
      if (kinds.includes('start') || kinds.includes('stop')) assert.ok(kinds.includes('reload'))
    }),
  )
})

test('what systemctl shows becomes a state', () => {
  const shown = parseShow(
    'Id=a.service\nActiveState=active\nSubState=running\nNRestarts=2\n\nId=b.service\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=3\nNRestarts=7\n',
  )
  assert.deepEqual([...shown.keys()], ['a.service', 'b.service'])
  assert.deepEqual(stateOf(shown.get('a.service') ?? {}), {
    state: 'running',
    detail: 'restarted 2 times',
  })
  assert.deepEqual(stateOf(shown.get('b.service') ?? {}), {
    state: 'failed',
    detail: 'exit-code, status 3, restarted 7 times; it will be restarted',
  })
  const next = { ActiveState: 'activating', SubState: 'start', NRestarts: '7' }
  assert.deepEqual(stateOf(next), {
    state: 'failed',
    detail: 'restarted 7 times; starting again',
  })
  assert.equal(stateOf({ ...next, NRestarts: '0' }).state, 'stopped')
  assert.deepEqual(stateOf({ ActiveState: 'inactive', Result: 'success' }), { state: 'stopped' })
})
