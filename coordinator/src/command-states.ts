import type { commandSchema } from '@holdfast/protocol'
import type { z } from 'zod'

// The states of a command, decided. Pure.
//   confirm -> waiting -> sent -> running -> done | failed,   and from all but the ends -> expired
// A node that is to leave is told only after its wards have moved: (confirm ->) preparing -> waiting.

export type CommandState = z.infer<typeof commandSchema>['state']

export type CommandEvent =
  | 'approved'
  /** Approved, and its node is told only after its wards have moved. */
  | 'approved_to_prepare'
  | 'prepared'
  | 'delivered'
  | 'progress'
  | 'succeeded'
  | 'failed'
  | 'expired'

/** The state after an event; the same state when the event means nothing there. */
export function nextCommandState(state: CommandState, event: CommandEvent): CommandState {
  if (state === 'done' || state === 'failed') return state
  switch (event) {
    case 'approved':
      return state === 'confirm' ? 'waiting' : state
    case 'approved_to_prepare':
      return state === 'confirm' ? 'preparing' : state
    case 'prepared':
      return state === 'preparing' ? 'waiting' : state
    case 'delivered':
      return state === 'waiting' ? 'sent' : state
    case 'progress':
      return state === 'waiting' || state === 'sent' ? 'running' : state
    // A result is the truth, even when it comes after the time was up.
    case 'succeeded':
      return isHeldBack(state) ? state : 'done'
    case 'failed':
      return isHeldBack(state) ? state : 'failed'
    case 'expired':
      return 'expired'
    default:
      return event satisfies never
  }
}

/** True while the node must not know of it. */
function isHeldBack(state: CommandState): boolean {
  return state === 'confirm' || state === 'preparing'
}
