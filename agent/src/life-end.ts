import type { LifeEffect, LifeEvent } from './life-event.ts'
import { factoryState, type LifeState, type Task } from './life-state.ts'

// How a node's life ends, decided: it leaves, it is reset, or somebody panics. Pure, and a part of
// `life.ts`. The order is always the same: services and vault are closed, keys are destroyed, the
// receipt is delivered under the identity that made it, and only then may the identity go. Panic 1
// destroys nothing; the node holds itself shut until an operator opens it. What is under way gives
// way to a harder end, never to a softer one.

/** A task that ends with a closed vault. */
export type End = Task & { kind: 'leave' | 'wipe' | 'panic' }

/** True for a task that ends with a closed vault. */
export function isEnd(task: Task | undefined): task is End {
  return task?.kind === 'leave' || task?.kind === 'wipe' || task?.kind === 'panic'
}

/** What an end asks for. */
export function dueOfEnd(task: End): LifeEffect {
  const { command } = task
  switch (task.step) {
    case 'handover':
      return { kind: 'hand_over', command, ...forceOf(task) }
    case 'close':
      return isLock(task) ? { kind: 'lock', command } : { kind: 'close' }
    case 'erase':
      return { kind: 'erase', command, level: task.kind === 'panic' ? task.level : 3 }
    case 'report':
      return { kind: 'report', what: whatOf(task), id: command, text: '' }
    case 'forget':
      return { kind: 'forget', command }
    default:
      return task satisfies never
  }
}

const forceOf = (it: { force?: boolean | undefined } | object) =>
  'force' in it && it.force === true ? { force: true } : {}

function isLock(task: End): boolean {
  return task.kind === 'panic' && task.level === 1
}

function whatOf(task: End): 'left' | 'wiped' | 'locked' {
  if (task.kind === 'leave') return 'left'
  return isLock(task) ? 'locked' : 'wiped'
}

/** An order to end, or undefined when it cannot be followed now. */
export function ordered(
  state: LifeState,
  event: LifeEvent & { kind: 'leave' | 'wipe' | 'panic' },
): LifeState | undefined {
  const { task } = state
  const { command } = event
  if (event.kind === 'leave') {
    const free = task === undefined && (state.phase === 'open' || state.phase === 'locked')
    if (!free) return undefined
    return { ...state, task: { kind: 'leave', step: 'handover', command, ...forceOf(event) } }
  }
  if (isEnd(task) && !givesWay(task, event)) return undefined
  // Of a node that has left or was reset, the identity is still there to be destroyed.
  const ended = state.phase === 'left' || state.phase === 'wiped'
  const destroys = event.kind === 'panic' && event.level > 1
  if (!hasVault(state) && !(ended && destroys)) return undefined
  if (event.kind === 'wipe') return { ...state, task: { kind: 'wipe', step: 'close', command } }
  const { level } = event
  if (level > 1) return { ...state, task: { kind: 'panic', level, step: 'close', command } }
  if (state.phase === 'enrolling') return undefined
  const held = 'locked by panic 1: only a key that an operator pushes opens it'
  return { ...state, held, task: { kind: 'panic', level, step: 'close', command } }
}

/** True when the end under way may be replaced by this one. */
function givesWay(task: End, event: LifeEvent & { kind: 'wipe' | 'panic' }): boolean {
  if (task.step === 'forget') return false
  // Leaving and resetting keep the identity; only panic 2 and 3 do more than what they have begun.
  if (task.kind !== 'panic') {
    const destroying = task.step === 'erase' || task.step === 'report'
    if (event.kind === 'wipe') return !destroying && task.kind === 'leave'
    return event.level > 1 || !destroying
  }
  if (event.kind === 'wipe') return task.level === 1
  return event.level > task.level
}

/** True when the disk is this node's: what it carried before must never be erased. */
function hasVault({ phase, task }: LifeState): boolean {
  if (phase === 'open' || phase === 'locked') return true
  const early = task?.kind === 'enrol' && (task.step === 'probe' || task.step === 'await_guardians')
  return phase === 'enrolling' && !early
}

/** An event that moves an end on. */
export function ending(state: LifeState, task: End, event: LifeEvent): LifeState | undefined {
  switch (`${task.step} ${event.kind}`) {
    case 'handover handed_over':
      return { ...state, task: { ...task, step: 'close' } as End } // `leave` has that step
    case 'handover handover_refused':
      return refused(state, event)
    case 'close closed': {
      const next = isLock(task) ? 'report' : 'erase'
      const ended = state.phase === 'left' || state.phase === 'wiped'
      const phase = ended ? state.phase : 'locked'
      return { ...state, phase, task: { ...task, step: next } as End } // each has both
    }
    case 'erase erased': {
      const { held: _, ...rest } = state
      const phase = task.kind === 'leave' ? 'left' : 'wiped'
      return { ...rest, phase, task: { ...task, step: 'report' } }
    }
    case 'report reported':
      if (task.kind === 'panic' && task.level > 1)
        return { ...state, task: { ...task, step: 'forget' } }
      return without(state)
    case 'forget forgotten':
      return factoryState
    default:
      return undefined
  }
}

function refused(state: LifeState, event: LifeEvent): LifeState {
  const text = event.kind === 'handover_refused' ? event.text : ''
  return without({ ...state, lastErrors: [...state.lastErrors, text.slice(0, 500)].slice(-8) })
}

function without({ task: _, ...state }: LifeState): LifeState {
  return state
}
