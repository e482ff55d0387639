import type { Enrolment } from '@holdfast/protocol/frames'
import { factoryState, type GuardianSet, type LifeState, type Task } from './life-state.ts'

// A node's life, decided. `step` is pure: it takes the state and something that happened and gives
// the next state and what is to be done. Rules:
// - the caller makes the state durable before it does anything; it does one thing at a time, goes on
//   with what it is doing while that is still due, and stops it first when something else is;
// - `due` derives what is to be done from the state alone, so a restart does the step again, and every
//   effect must bear being done twice;
// - an event that does not belong to the step under way changes nothing;
// - a disk is only formatted after it has been seen empty in this very enrolment;
// - old ways in go only after the new one has been proven; an erasure begun is never taken back.

export type LifeEvent =
  /** The agent has started; `open` says that the vault is still mapped. */
  | { kind: 'started'; open: boolean }
  | { kind: 'accepted'; enrolment: Enrolment }
  /** The coordinator orders a set of guardians. */
  | { kind: 'ordered'; set: GuardianSet }
  /** What the disk carries: `ours` is a finished vault of this enrolment. */
  | { kind: 'probed'; found: 'nothing' | 'unfinished' | 'ours' | 'occupied'; text: string }
  | { kind: 'formatted' }
  | { kind: 'closed' }
  | { kind: 'opened' }
  | { kind: 'bound'; keyslot: number }
  | { kind: 'proven' }
  | { kind: 'dropped' }
  | { kind: 'handed_over' }
  | { kind: 'handover_refused'; text: string }
  | { kind: 'erased' }
  | { kind: 'reported' }
  | { kind: 'failed'; text: string }
  | { kind: 'wrong_key' }
  | { kind: 'leave'; command: string }
  | { kind: 'wipe'; command: string }

export type LifeEffect =
  | { kind: 'open_port' }
  | { kind: 'probe' }
  | { kind: 'format'; enrolment: Enrolment; set?: GuardianSet }
  | { kind: 'close' }
  /** Every way at once, for ever, and an operator's push at the same time. */
  | { kind: 'unlock' }
  /** Add the way in through this set, or find the one that was added before. */
  | { kind: 'bind'; set: GuardianSet }
  /** Open by this keyslot alone; with `reopen` after closing the vault. */
  | { kind: 'prove'; keyslot: number; reopen: boolean }
  /** Remove every automatic way but this keyslot. */
  | { kind: 'drop'; keep: number }
  /** Ask the coordinator to find others for this node's wards. */
  | { kind: 'hand_over'; command: string }
  /** Destroy every keyslot. */
  | { kind: 'erase'; command: string }
  | {
      kind: 'report'
      what: 'enrolled' | 'refused' | 'reshared' | 'left' | 'wiped'
      id: string
      text: string
    }

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
  if (task?.kind === 'wipe' || task?.kind === 'leave') return dueOfEnd(task)
  if (task?.kind === 'enrol') return dueOfEnrolment(state, task)
  if (phase === 'locked') return { kind: 'unlock' }
  if (task?.kind === 'reshare') return dueOfReshare(state, task)
  return undefined
}

function dueOfEnrolment(
  { enrolment }: LifeState,
  task: Task & { kind: 'enrol' },
): LifeEffect | undefined {
  if (enrolment === undefined) return undefined
  const { set, reason } = task
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
    case 'report':
      return { kind: 'report', what: 'enrolled', id: set?.id ?? '', text: '' }
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

function dueOfEnd({ kind, step: at, command }: Task & { kind: 'wipe' | 'leave' }): LifeEffect {
  if (at === 'handover') return { kind: 'hand_over', command }
  if (at === 'close') return { kind: 'close' }
  if (at === 'erase') return { kind: 'erase', command }
  const what = kind === 'wipe' ? 'wiped' : 'left'
  return { kind: 'report', what, id: command, text: '' }
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
      return ending(state, event)
    case 'opened':
      if (state.phase === 'locked' && !isEnding(state)) return { ...state, phase: 'open' }
      return inTask(state, event)
    default:
      return inTask(state, event)
  }
}

function started(state: LifeState, open: boolean): LifeState {
  const { task } = state
  if (task?.kind === 'enrol' && task.step === 'refused') return factoryState
  if (state.phase === 'open' && !open) return { ...state, phase: 'locked' }
  if (state.phase === 'locked' && open) return { ...state, phase: 'open' }
  return state
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

function isEnding({ task }: LifeState): boolean {
  return task?.kind === 'wipe' || task?.kind === 'leave'
}

function ending(
  state: LifeState,
  { kind, command }: LifeEvent & { kind: 'leave' | 'wipe' },
): LifeState | undefined {
  const { task } = state
  if (kind === 'leave') {
    const free = task === undefined && (state.phase === 'open' || state.phase === 'locked')
    return free ? { ...state, task: { kind, step: 'handover', command } } : undefined
  }
  // A wipe interrupts everything but another end that is already destroying keyslots.
  const destroying = isEnding(state) && (task?.step === 'erase' || task?.step === 'report')
  if (destroying || task?.kind === 'wipe' || !hasVault(state)) return undefined
  return { ...state, task: { kind, step: 'close', command } }
}

/** True when the disk is this node's: what it carried before must never be erased. */
function hasVault({ phase, task }: LifeState): boolean {
  if (phase === 'open' || phase === 'locked') return true
  const early = task?.kind === 'enrol' && (task.step === 'probe' || task.step === 'await_guardians')
  return phase === 'enrolling' && !early
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
      return leaving(state, task, event)
    case 'wipe':
      return erasing(state, task, event, 'wiped')
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
      const proven = set === undefined ? {} : { set }
      return { ...state, ...proven, phase: 'open', task: { ...task, step: 'report' } }
    }
    case 'report reported':
      return without(state)
    default:
      return undefined
  }
}

function probed(
  state: LifeState,
  task: Task & { kind: 'enrol' },
  { found, text }: LifeEvent & { kind: 'probed' },
): LifeState {
  if (found === 'nothing' || found === 'unfinished')
    return { ...state, task: { ...task, step: 'format' } }
  if (found === 'ours') return { ...state, task: { ...task, step: 'close' } }
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

function leaving(
  state: LifeState,
  task: Task & { kind: 'leave' },
  event: LifeEvent,
): LifeState | undefined {
  if (task.step !== 'handover') return erasing(state, task, event, 'left')
  if (event.kind === 'handed_over') return { ...state, task: { ...task, step: 'close' } }
  if (event.kind !== 'handover_refused') return undefined
  return without({
    ...state,
    lastErrors: [...state.lastErrors, event.text.slice(0, 500)].slice(-8),
  })
}

function erasing(
  state: LifeState,
  task: Task & { kind: 'leave' | 'wipe' },
  event: LifeEvent,
  end: 'left' | 'wiped',
): LifeState | undefined {
  const at = (name: 'close' | 'erase' | 'report') => task.step === name
  if (at('close') && event.kind === 'closed')
    return { ...state, phase: 'locked', task: { ...task, step: 'erase' } }
  if (at('erase') && event.kind === 'erased')
    return { ...state, phase: end, task: { ...task, step: 'report' } }
  return at('report') && event.kind === 'reported' ? without(state) : undefined
}

function without({ task: _, ...state }: LifeState): LifeState {
  return state
}
