import type { Enrolment } from '@holdfast/protocol/frames'
import { dueOfEnd, ending, isEnd, ordered as orderedEnd } from './life-end.ts'
import type { LifeEffect, LifeEvent } from './life-event.ts'
import { factoryState, type GuardianSet, type LifeState, type Task } from './life-state.ts'

// A node's life, decided. `step` is pure: it takes the state and something that happened and gives
// the next state and what is to be done. Rules:
// - the caller makes the state durable before it does anything; it does one thing at a time, goes on
//   with what it is doing while that is still due, and stops it first when something else is;
// - `due` derives what is to be done from the state alone, so a restart does the step again, and every
//   effect must bear being done twice;
// - an event that does not belong to the step under way changes nothing;
// - a disk is only formatted after it has been seen empty in this very enrolment;
// - old ways in go only after the new one has been proven; an erasure begun is never taken back;
// - what panic 1 has shut, only an operator's key opens.

export interface Step {
  state: LifeState
  effects: readonly LifeEffect[]
}

/** What happens next. Effects come with every event that the state takes in, and with none else. */
export function step(state: LifeState, event: LifeEvent): Step {
  const next = transition(state, event)
  if (next === undefined) return { state, effects: [] }
  const effect = due(next)
  return { state: next, effects: effect === undefined ? [] : [effect] }
}

/** What the state asks for; at most one thing, because every step waits for the one before. */
export function due(state: LifeState): LifeEffect | undefined {
  const { phase, task } = state
  if (phase === 'factory') return { kind: 'open_port' }
  if (isEnd(task)) return dueOfEnd(task)
  // A vault that is enrolled and shut is opened first: a coordinator that is away must not keep it shut.
  const opensFirst = phase === 'locked' && task?.kind === 'enrol' && task.step === 'report'
  if (task?.kind === 'enrol' && !opensFirst) return dueOfEnrolment(state, task)
  if (phase === 'locked') return state.held === undefined ? { kind: 'unlock' } : undefined
  if (task?.kind === 'reshare') return dueOfReshare(state, task)
  return undefined
}

function dueOfEnrolment(
  { enrolment, set: proven }: LifeState,
  task: Task & { kind: 'enrol' },
): LifeEffect | undefined {
  if (enrolment === undefined) return undefined
  const { set, reason } = task
  const isProven = set !== undefined && proven?.epoch === set.epoch
  switch (task.step) {
    case 'await_guardians':
      return undefined
    case 'probe':
      return { kind: 'probe' }
    case 'format':
      return { kind: 'format', enrolment, ...(set === undefined ? {} : { set }) }
    case 'close':
      return { kind: 'close' }
    case 'reopen':
      return { kind: 'unlock' }
    case 'adopt':
      return undefined // none of its ways is this identity's: an operator's key opens it
    case 'report':
      return { kind: 'report', what: 'enrolled', id: isProven ? set.id : '', text: '' }
    case 'refused':
      return { kind: 'report', what: 'refused', id: '', text: reason?.message ?? '' }
    default:
      return task.step satisfies never
  }
}

function dueOfReshare(state: LifeState, task: Task & { kind: 'reshare' }): LifeEffect | undefined {
  const { set, keyslot } = task
  if (task.step === 'report') return { kind: 'report', what: 'reshared', id: set.id, text: '' }
  if (task.step === 'bind' || keyslot === undefined) return { kind: 'bind', set }
  if (task.step === 'drop') return { kind: 'drop', keep: keyslot }
  return { kind: 'prove', keyslot, reopen: state.genesis }
}

/** The next state, or undefined when the event says nothing to this one. */
function transition(state: LifeState, event: LifeEvent): LifeState | undefined {
  switch (event.kind) {
    case 'started':
      return started(state, event.open)
    case 'accepted':
      return accepted(state, event.enrolment)
    case 'ordered':
      return ordered(state, event.set)
    case 'wrong_key':
      return { ...state, wrongKeys: state.wrongKeys + 1 }
    case 'failed':
      return { ...state, lastErrors: [...state.lastErrors, event.text.slice(0, 500)].slice(-8) }
    case 'leave':
    case 'wipe':
    case 'panic':
      return orderedEnd(state, event)
    case 'opened':
      return opened(state, event)
    default:
      return inTask(state, event)
  }
}

function started(state: LifeState, open: boolean): LifeState {
  const { task } = state
  if (task?.kind === 'enrol' && task.step === 'refused') return factoryState
  if (state.phase === 'open' && !open) return { ...state, phase: 'locked' }
  if (state.phase !== 'locked' || !open || isEnd(task)) return state
  if (state.held === undefined) return { ...state, phase: 'open' }
  // Mapped behind a node's back that is held shut: it is closed again.
  return { ...state, task: { kind: 'panic', level: 1, step: 'close', command: '' } }
}

function opened(state: LifeState, event: LifeEvent & { kind: 'opened' }): LifeState | undefined {
  if (state.phase !== 'locked' || isEnd(state.task)) return inTask(state, event)
  if (state.held === undefined) return { ...state, phase: 'open' }
  if (event.by !== 'operator') return undefined
  const { held: _, ...rest } = state
  return { ...rest, phase: 'open' }
}

function accepted(state: LifeState, enrolment: Enrolment): LifeState | undefined {
  if (state.phase !== 'factory') return undefined
  // Without peers and without pins of its own the vault can only begin with its temporary way.
  const alone = enrolment.genesis || enrolment.pins !== undefined
  return {
    ...state,
    phase: 'enrolling',
    enrolment,
    genesis: enrolment.genesis,
    task: { kind: 'enrol', step: alone ? 'probe' : 'await_guardians' },
  }
}

function ordered(state: LifeState, set: GuardianSet): LifeState | undefined {
  const { task } = state
  if (task?.kind === 'enrol' && task.step === 'await_guardians')
    return { ...state, task: { kind: 'enrol', step: 'probe', set } }
  if (state.phase !== 'open' && state.phase !== 'locked') return undefined
  if (state.set?.epoch === set.epoch && task === undefined)
    // Done before; the answer was lost.
    return state.set.id === set.id
      ? { ...state, task: { kind: 'reshare', step: 'report', set } }
      : undefined
  if (set.epoch <= (state.set?.epoch ?? 0)) return undefined
  if (task === undefined) return { ...state, task: { kind: 'reshare', step: 'bind', set } }
  // A newer order replaces one of which nothing has been removed yet.
  const early = task.kind === 'reshare' && (task.step === 'bind' || task.step === 'prove')
  if (early && set.epoch > task.set.epoch)
    return { ...state, task: { kind: 'reshare', step: 'bind', set } }
  return undefined
}

/**
 * True when an order of guardians is not taken and never will be, because something else is under way:
 * whoever gave it must hear of that, or would wait for what nobody does.
 */
export function declines({ set: now, task }: LifeState, set: GuardianSet): boolean {
  const own = task !== undefined && 'set' in task ? task.set : undefined
  return task !== undefined && set.epoch > Math.max(now?.epoch ?? 0, own?.epoch ?? 0)
}

/** Events that move the task under way. */
function inTask(state: LifeState, event: LifeEvent): LifeState | undefined {
  const { task } = state
  switch (task?.kind) {
    case 'enrol':
      return enrolling(state, task, event)
    case 'reshare':
      return resharing(state, task, event)
    case 'leave':
    case 'wipe':
    case 'panic':
      return ending(state, task, event)
    case undefined:
      return undefined
    default:
      return task satisfies never
  }
}

function enrolling(
  state: LifeState,
  task: Task & { kind: 'enrol' },
  event: LifeEvent,
): LifeState | undefined {
  switch (`${task.step} ${event.kind}`) {
    case 'probe probed':
      return probed(state, task, event as LifeEvent & { kind: 'probed' }) // by the case
    case 'format formatted':
      return { ...state, task: { ...task, step: 'close' } }
    case 'close closed':
      return { ...state, task: { ...task, step: 'reopen' } }
    case 'reopen opened': {
      const { set } = task
      // An operator's key says nothing about the guardians: closed again, until they have opened it.
      const byOperator = event.kind === 'opened' && event.by === 'operator'
      if (set !== undefined && byOperator) return { ...state, task: { ...task, step: 'close' } }
      const proven = set === undefined ? {} : { set }
      return { ...state, ...proven, phase: 'open', task: { ...task, step: 'report' } }
    }
    case 'adopt opened':
      // It opens by a temporary way now, as a first node does; the guardians come by a re-share.
      return { ...state, phase: 'open', genesis: true, task: { ...task, step: 'report' } }
    case 'report reported':
      return enrolled(state, task)
    default:
      return undefined
  }
}

/** At rest, or on the way to the guardians whose order came before the vault was adopted. */
function enrolled(state: LifeState, { set }: Task & { kind: 'enrol' }): LifeState {
  if (set === undefined || state.set !== undefined) return without(state)
  return { ...state, task: { kind: 'reshare', step: 'bind', set } }
}

function probed(
  state: LifeState,
  task: Task & { kind: 'enrol' },
  { found, text }: LifeEvent & { kind: 'probed' },
): LifeState {
  if (found === 'nothing' || found === 'unfinished')
    return { ...state, task: { ...task, step: 'format' } }
  if (found === 'ours') return { ...state, task: { ...task, step: 'close' } }
  if (found === 'restored') return { ...state, task: { ...task, step: 'adopt' } }
  const reason = { code: 'agent.disk_in_use', message: text }
  return { ...state, phase: 'rescue', task: { ...task, step: 'refused', reason } }
}

function resharing(
  state: LifeState,
  task: Task & { kind: 'reshare' },
  event: LifeEvent,
): LifeState | undefined {
  switch (event.kind) {
    case 'bound':
      if (task.step !== 'bind' || state.phase !== 'open') return undefined
      return { ...state, task: { ...task, step: 'prove', keyslot: event.keyslot } }
    case 'proven':
      if (task.step !== 'prove' || state.phase !== 'open') return undefined
      return { ...state, task: { ...task, step: 'drop' } }
    case 'dropped':
      if (task.step !== 'drop') return undefined
      return { ...state, set: task.set, genesis: false, task: { ...task, step: 'report' } }
    case 'reported':
      return task.step === 'report' ? without(state) : undefined
    default:
      return undefined
  }
}

function without({ task: _, ...state }: LifeState): LifeState {
  return state
}
