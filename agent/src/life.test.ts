import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { declines, due, step } from './life.ts'
import type { LifeEffect, LifeEvent } from './life-event.ts'
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

test('an order in the middle of something else is declined, never one that is under way or done', () => {
  const declined = (state: LifeState, epoch: number) => {
    const ordered = step(state, { kind: 'ordered', set: set(epoch) })
    return ordered.effects.length === 0 && declines(state, set(epoch))
  }
  const reporting = live(enrolled.slice(0, -1)).state
  assert.equal(declined(reporting, 1), true)
  const dropping = live([
    ...enrolled,
    { kind: 'ordered', set: set(4) },
    { kind: 'bound', keyslot: 2 },
    { kind: 'proven' },
  ]).state
  assert.deepEqual(
    [3, 4, 5].map((epoch) => declined(dropping, epoch)),
    [false, false, true],
  )
  const done = live([{ kind: 'dropped' }, { kind: 'reported' }], dropping).state
  assert.deepEqual(
    [3, 4, 5].map((epoch) => declined(done, epoch)),
    [false, false, false],
  )
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
  assert.deepEqual(wiping.effects, [{ kind: 'erase', command: 'w', level: 3 }])
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

test('panic 1 shuts the vault until an operator opens it, over restarts and guardians', () => {
  const { state } = live([...enrolled, { kind: 'panic', level: 1, command: 'p' }])
  assert.deepEqual(due(state), { kind: 'lock', command: 'p' })
  const shut = live([{ kind: 'closed' }, { kind: 'reported' }], state).state
  assert.deepEqual([shut.phase, shut.task, due(shut)], ['locked', undefined, undefined])
  const tries: LifeEvent[] = [
    { kind: 'started', open: false },
    { kind: 'opened' },
    { kind: 'ordered', set: set(1) },
    { kind: 'panic', level: 1, command: 'again' },
  ]
  for (const event of tries) {
    const next = step(shut, event).state
    assert.deepEqual([next.phase, next.held === undefined], ['locked', false], event.kind)
  }
  // Mapped by somebody behind its back, it is closed again.
  assert.deepEqual(due(step(shut, { kind: 'started', open: true }).state)?.kind, 'lock')
  const free = step(shut, { kind: 'opened', by: 'operator' }).state
  assert.deepEqual([free.phase, free.held], ['open', undefined])
})

test('panic 2 destroys, delivers its receipt, and only then forgets who it was', () => {
  const { state } = live([...enrolled, { kind: 'panic', level: 2, command: 'p' }])
  const events: LifeEvent[] = [
    { kind: 'closed' },
    { kind: 'erased' },
    { kind: 'reported' },
    { kind: 'forgotten' },
  ]
  const kinds = events.map((_, index) => due(live(events.slice(0, index), state).state)?.kind)
  assert.deepEqual(kinds, ['close', 'erase', 'report', 'forget'])
  assert.deepEqual(live(events, state).state, factoryState)
})

test('an end gives way to a harder one, and to no softer one', () => {
  const after = (first: LifeEvent, second: LifeEvent) =>
    live([...enrolled, first, second]).state.task
  const panic = (level: 1 | 2 | 3): LifeEvent => ({ kind: 'panic', level, command: `p${level}` })
  const leave: LifeEvent = { kind: 'leave', command: 'l' }
  const wipe: LifeEvent = { kind: 'wipe', command: 'w' }
  const commands = [
    after(panic(1), panic(2)),
    after(panic(2), panic(3)),
    after(panic(3), panic(2)),
    after(panic(2), wipe),
    after(panic(1), wipe),
    after(wipe, panic(2)),
    after(leave, panic(1)),
  ].map((task) => (task !== undefined && 'command' in task ? task.command : ''))
  assert.deepEqual(commands, ['p2', 'p3', 'p3', 'p2', 'w', 'p2', 'p1'])
})

test('a header that the holders have brought back is adopted by an operator, not formatted', () => {
  const { state } = live([
    { kind: 'accepted', enrolment: enrolment(false) },
    { kind: 'ordered', set: set(1) },
    { kind: 'probed', found: 'restored', text: '' },
  ])
  assert.deepEqual([state.task?.step, due(state)], ['adopt', undefined])
  const open = step(state, { kind: 'opened', by: 'operator' }).state
  assert.deepEqual([open.phase, open.genesis, open.set], ['open', true, undefined])
  const next = step(open, { kind: 'reported' })
  assert.deepEqual(next.effects, [{ kind: 'bind', set: set(1) }])
})

const anyEvent: fc.Arbitrary<LifeEvent> = fc.oneof(
  fc.boolean().map((open): LifeEvent => ({ kind: 'started', open })),
  fc.boolean().map((genesis): LifeEvent => ({ kind: 'accepted', enrolment: enrolment(genesis) })),
  fc.integer({ min: 1, max: 4 }).map((epoch): LifeEvent => ({ kind: 'ordered', set: set(epoch) })),
  fc
    .constantFrom('nothing', 'unfinished', 'ours', 'restored', 'occupied')
    .map((found): LifeEvent => ({ kind: 'probed', found, text: '' })),
  fc.integer({ min: 0, max: 31 }).map((keyslot): LifeEvent => ({ kind: 'bound', keyslot })),
  fc.constantFrom('leave', 'wipe').map((kind): LifeEvent => ({ kind, command: 'c' })),
  fc.constantFrom(1, 2, 3).map((level): LifeEvent => ({ kind: 'panic', level, command: 'p' })),
  fc.constant<LifeEvent>({ kind: 'opened', by: 'operator' }),
  fc.constant<LifeEvent>({ kind: 'forgotten' }),
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
        if (event.kind === 'probed' && taken)
          sawEmpty = !['ours', 'restored', 'occupied'].includes(event.found)
        if (event.kind === 'ordered') proven &&= next.state === before
        if (event.kind === 'proven' && before !== state) proven = true
        ended ||= event.kind === 'wipe' || event.kind === 'leave' || event.kind === 'panic'
        ours ||= event.kind === 'probed' && taken && event.found !== 'occupied'
        const [effect] = next.effects
        assert.ok(next.effects.length <= 1)
        if (effect?.kind === 'format') assert.ok(sawEmpty, 'formats what was not seen empty')
        if (effect?.kind === 'drop') assert.ok(proven, 'drops before the proof')
        if (effect?.kind === 'erase') assert.ok(ended && ours, 'destroys without an order')
        if (effect?.kind === 'unlock') assert.equal(state.held, undefined, 'asks while it is held')
        const opens = before.phase !== 'open' && state.phase === 'open'
        if (before.held !== undefined && opens)
          assert.ok(event.kind === 'opened' && event.by === 'operator', 'opens by itself')
        if (state.phase === 'factory' && before.phase !== 'factory') [ended, ours] = [false, false]
        if (opens) assert.ok(event.kind === 'opened' || event.kind === 'started')
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
  const milestones = new Map<string, number>()
  let powerCuts = 0
  for (let seed = from; seed < from + lives; seed += 1) {
    const result = simulate({ seed })
    powerCuts += result.powerCuts
    for (const each of result.milestones) milestones.set(each, (milestones.get(each) ?? 0) + 1)
    phases.set(result.state.phase, (phases.get(result.state.phase) ?? 0) + 1)
  }
  if (lives === 1) return
  for (const phase of ['open', 'left', 'wiped', 'rescue']) assert.ok(phases.has(phase), phase)
  for (const each of ['held', 'released', 'forgotten', 'restored', 'adopted'])
    assert.ok((milestones.get(each) ?? 0) > 50, `${each}: ${milestones.get(each)}`)
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
  'opens what is held at a restart': (state, event) => {
    if (event.kind !== 'started' || state.held === undefined) return step(state, event)
    const { held: _, ...rest } = state
    return step(rest, event)
  },
  'forgets itself before its keys are destroyed': (state, event) => {
    const next = step(state, event)
    const { task } = next.state
    if (task?.kind !== 'panic' || task.step !== 'erase') return next
    const early = { ...next.state, task: { ...task, step: 'forget' as const } }
    return { state: early, effects: [{ kind: 'forget', command: task.command }] }
  },
  'formats over what the holders have brought back': (state, event) =>
    step(
      state,
      event.kind === 'probed' && event.found === 'restored'
        ? { ...event, found: 'unfinished' }
        : event,
    ),
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
