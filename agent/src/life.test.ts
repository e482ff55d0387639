import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { due, type LifeEffect, type LifeEvent, step } from './life.ts'
import { factoryState, type GuardianSet, type LifeState, lifeStateSchema } from './life-state.ts'
import { SimulationFailure, simulate } from './simulator.ts'

const guardian = {
  node: 'g'.repeat(43),
  addresses: ['https://192.0.2.2:9998'],
  identity: '-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----\n',
  key: {},
  signature: '',
}

const set = (epoch: number): GuardianSet => ({
  id: `order-${epoch}`,
  epoch,
  threshold: 3,
  guardians: [guardian],
})

const enrolment = (genesis: boolean) => ({
  cluster: 'c'.repeat(22),
  name: 'web-1',
  certificate: '',
  authority: '',
  coordinators: ['https://192.0.2.1:8443'],
  coordinatorIdentity: 'i'.repeat(43),
  commandKey: '-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----\n',
  address: '10.88.0.2/16',
  genesis,
})

/** Feeds events and returns the last state with the effects of the last event. */
function live(events: readonly LifeEvent[], from: LifeState = factoryState) {
  return events.reduce<{ state: LifeState; effects: readonly LifeEffect[] }>(
    ({ state }, event) => step(state, event),
    { state: from, effects: [] },
  )
}

const enrolled: LifeEvent[] = [
  { kind: 'accepted', enrolment: enrolment(true) },
  { kind: 'probed', found: 'nothing', text: '' },
  { kind: 'formatted' },
  { kind: 'closed' },
  { kind: 'opened' },
  { kind: 'reported' },
]

test('the first node is formatted, closed, reopened, and only then enrolled', () => {
  const kinds = enrolled.map((_, index) => live(enrolled.slice(0, index + 1)).effects[0]?.kind)
  assert.deepEqual(kinds, ['probe', 'format', 'close', 'unlock', 'report', undefined])
  assert.equal(live(enrolled.slice(0, 4)).state.phase, 'enrolling')
  assert.equal(live(enrolled).state.phase, 'open')
})

test('a node that is not the first waits for its guardians before the disk is touched', () => {
  const waiting = live([{ kind: 'accepted', enrolment: enrolment(false) }])
  assert.deepEqual(waiting.effects, [])
  const { effects } = step(waiting.state, { kind: 'ordered', set: set(1) })
  assert.deepEqual(effects, [{ kind: 'probe' }])
})

test('a disk that carries something ends in rescue, and a restart begins anew', () => {
  const found = live([
    { kind: 'accepted', enrolment: enrolment(true) },
    { kind: 'probed', found: 'occupied', text: 'it holds ext4' },
  ])
  assert.equal(found.state.phase, 'rescue')
  assert.deepEqual(found.effects, [
    { kind: 'report', what: 'refused', id: '', text: 'it holds ext4' },
  ])
  assert.deepEqual(step(found.state, { kind: 'started', open: false }).state, factoryState)
})

test('the first re-share closes the vault for its proof, later ones do not', () => {
  const { state } = live([...enrolled, { kind: 'ordered', set: set(1) }])
  const bound = step(state, { kind: 'bound', keyslot: 2 })
  assert.deepEqual(bound.effects, [{ kind: 'prove', keyslot: 2, reopen: true }])
  const done = live([{ kind: 'proven' }, { kind: 'dropped' }, { kind: 'reported' }], bound.state)
  assert.deepEqual([done.state.genesis, done.state.set?.epoch], [false, 1])
  const next = live(
    [
      { kind: 'ordered', set: set(2) },
      { kind: 'bound', keyslot: 3 },
    ],
    done.state,
  )
  assert.deepEqual(next.effects, [{ kind: 'prove', keyslot: 3, reopen: false }])
})

test('an old epoch is not taken, the present one is only reported again', () => {
  const reshared: LifeEvent[] = [
    { kind: 'ordered', set: set(4) },
    { kind: 'bound', keyslot: 2 },
    { kind: 'proven' },
    { kind: 'dropped' },
    { kind: 'reported' },
  ]
  const { state } = live([...enrolled, ...reshared])
  assert.deepEqual(step(state, { kind: 'ordered', set: set(3) }), { state, effects: [] })
  const again = step(state, { kind: 'ordered', set: set(4) })
  assert.deepEqual(again.effects, [{ kind: 'report', what: 'reshared', id: 'order-4', text: '' }])
  const forged = step(state, { kind: 'ordered', set: { ...set(4), id: 'another' } })
  assert.deepEqual(forged, { state, effects: [] })
})

test('wrong keys are counted and change nothing else', () => {
  const { state } = live([...enrolled, { kind: 'started', open: false }])
  const after = step(state, { kind: 'wrong_key' })
  assert.deepEqual(after.state, { ...state, wrongKeys: 1 })
  assert.deepEqual(after.effects, [{ kind: 'unlock' }])
})

test('a locked node can be wiped, and a wipe is not taken back', () => {
  const locked = live([...enrolled, { kind: 'started', open: false }])
  const wiping = live([{ kind: 'wipe', command: 'w' }, { kind: 'closed' }], locked.state)
  assert.deepEqual(wiping.effects, [{ kind: 'erase', command: 'w' }])
  const others: LifeEvent[] = [
    { kind: 'ordered', set: set(9) },
    { kind: 'leave', command: 'l' },
    { kind: 'opened' },
    { kind: 'handover_refused', text: '' },
    { kind: 'started', open: false },
  ]
  for (const event of others)
    assert.deepEqual(due(step(wiping.state, event).state), due(wiping.state))
  assert.equal(live([{ kind: 'erased' }, { kind: 'reported' }], wiping.state).state.phase, 'wiped')
})

test('a leave that is refused leaves everything as it was', () => {
  const { state } = live([...enrolled, { kind: 'leave', command: 'l' }])
  const back = step(state, { kind: 'handover_refused', text: 'below the margin' })
  assert.deepEqual([back.state.phase, back.state.task], ['open', undefined])
})

const anyEvent: fc.Arbitrary<LifeEvent> = fc.oneof(
  fc.boolean().map((open): LifeEvent => ({ kind: 'started', open })),
  fc.boolean().map((genesis): LifeEvent => ({ kind: 'accepted', enrolment: enrolment(genesis) })),
  fc.integer({ min: 1, max: 4 }).map((epoch): LifeEvent => ({ kind: 'ordered', set: set(epoch) })),
  fc
    .constantFrom('nothing', 'unfinished', 'ours', 'occupied')
    .map((found): LifeEvent => ({ kind: 'probed', found, text: '' })),
  fc.integer({ min: 0, max: 31 }).map((keyslot): LifeEvent => ({ kind: 'bound', keyslot })),
  fc.constantFrom('leave', 'wipe').map((kind): LifeEvent => ({ kind, command: 'c' })),
  fc
    .constantFrom('formatted', 'closed', 'opened', 'proven', 'dropped')
    .map((kind): LifeEvent => ({ kind })),
  fc
    .constantFrom('handed_over', 'erased', 'reported', 'wrong_key')
    .map((kind): LifeEvent => ({ kind })),
  fc.constant<LifeEvent>({ kind: 'failed', text: 'x' }),
)

test('whatever happens in whatever order, the rules hold', () => {
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 60 }), (events) => {
      let state = factoryState
      let sawEmpty = false
      let proven = false
      let ended = false
      let ours = false
      for (const event of events) {
        const before = state
        const next = step(state, event)
        state = next.state
        if (event.kind === 'accepted' && before.phase === 'factory') sawEmpty = false
        const taken = state !== before
        if (event.kind === 'probed' && taken) sawEmpty = !['ours', 'occupied'].includes(event.found)
        if (event.kind === 'ordered') proven &&= next.state === before
        if (event.kind === 'proven' && before !== state) proven = true
        ended ||= event.kind === 'wipe' || event.kind === 'leave'
        ours ||= event.kind === 'probed' && taken && event.found !== 'occupied'
        const [effect] = next.effects
        assert.ok(next.effects.length <= 1)
        if (effect?.kind === 'format') assert.ok(sawEmpty, 'formats what was not seen empty')
        if (effect?.kind === 'drop') assert.ok(proven, 'drops before the proof')
        if (effect?.kind === 'erase') assert.ok(ended && ours, 'destroys without an order')
        if (state.phase === 'open' && before.phase !== 'open')
          assert.ok(event.kind === 'opened' || event.kind === 'started')
        assert.deepEqual(lifeStateSchema.parse(state).phase, state.phase)
      }
    }),
    { numRuns: 3000 },
  )
})

test('thousands of simulated lives keep the rules and settle', () => {
  const from = Number(process.env.HOLDFAST_SEED ?? 1)
  const lives = process.env.HOLDFAST_SEED === undefined ? 5000 : 1
  const phases = new Map<string, number>()
  let powerCuts = 0
  for (let seed = from; seed < from + lives; seed += 1) {
    const result = simulate({ seed })
    powerCuts += result.powerCuts
    phases.set(result.state.phase, (phases.get(result.state.phase) ?? 0) + 1)
  }
  if (lives === 1) return
  for (const phase of ['open', 'left', 'wiped', 'rescue']) assert.ok(phases.has(phase), phase)
  assert.ok(powerCuts > lives, 'power was cut more than once per life')
})

test('the same seed lives the same life', () => {
  assert.deepEqual(simulate({ seed: 77 }), simulate({ seed: 77 }))
})

const defects: Record<string, (state: LifeState, event: LifeEvent) => ReturnType<typeof step>> = {
  'drops before the proof': (state, event) => {
    const next = step(state, event)
    const [effect] = next.effects
    if (effect?.kind !== 'prove' || next.state.task?.kind !== 'reshare') return next
    const task = { ...next.state.task, step: 'drop' as const }
    return {
      state: { ...next.state, task },
      effects: [{ kind: 'drop', keep: effect.keyslot }],
    }
  },
  'formats without looking': (state, event) =>
    step(state, event.kind === 'probed' ? { ...event, found: 'nothing' } : event),
  'is enrolled without reopening': (state, event) => {
    const next = step(state, event)
    const early = next.state.task?.kind === 'enrol' && next.state.task.step === 'close'
    if (!early) return next
    return {
      state: { ...next.state, task: { kind: 'enrol', step: 'report' } },
      effects: [{ kind: 'report', what: 'enrolled', id: '', text: '' }],
    }
  },
  'forgets its task at a restart': (state, event) => {
    if (event.kind !== 'started') return step(state, event)
    const { task: _, ...rest } = state
    return { state: rest, effects: [] }
  },
}
for (const [name, broken] of Object.entries(defects)) {
  test(`the simulator finds a reducer that ${name}`, () => {
    const find = () => {
      for (let seed = 1; seed < 2000; seed += 1) simulate({ seed, step: broken })
    }
    assert.throws(find, (error) => {
      assert.ok(error instanceof SimulationFailure)
      // The seed alone finds it again.
      assert.throws(() => simulate({ seed: error.seed, step: broken }), { message: error.message })
      return true
    })
  })
}
