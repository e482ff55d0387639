import type { CoordinatorState, ReasonCode } from '@holdfast/protocol'
import { coordinatorFault } from './faults.ts'

/** What is found at start, before anything is decided. */
export interface Findings {
  /** The marker beside the database: this directory has belonged to a cluster. */
  marker: 'present' | 'absent'
  store: 'reachable' | 'unreachable'
  header: 'absent' | 'valid' | 'invalid'
  /** What the ways said: an open data key, none that opened, or one that contradicts the header. */
  key: 'open' | 'missing' | 'mismatch'
  /** Highest generation that a node or the TPM has seen, less than or equal when all is well. */
  witnessed: 'consistent' | 'ahead'
  manifest: 'present' | 'absent'
}

export interface Verdict {
  state: CoordinatorState
  reason: ReasonCode
}

/**
 * Decides the state from what was found. The one rule that matters most: a missing or damaged state
 * is never "fresh". Only when neither marker nor header exists may somebody claim the coordinator.
 */
export function judge(found: Findings): Verdict {
  if (found.store === 'unreachable') return { state: 'recovery', reason: 'storage_unreachable' }
  if (found.header === 'invalid') return { state: 'recovery', reason: 'header_invalid' }
  if (found.header === 'absent') {
    return found.marker === 'absent'
      ? { state: 'uninitialised', reason: 'claim_needed' }
      : { state: 'recovery', reason: 'storage_missing' }
  }
  if (found.key === 'missing') return { state: 'recovery', reason: 'key_missing' }
  if (found.key === 'mismatch') return { state: 'recovery', reason: 'key_mismatch' }
  if (found.witnessed === 'ahead') return { state: 'recovery', reason: 'rollback_suspected' }
  if (found.manifest === 'absent') return { state: 'ready', reason: 'manifest_needed' }
  return { state: 'running', reason: 'open' }
}

/**
 * @throws Fault coordinator.not_in_this_state, coordinator.storage_unreachable
 */
export function requireState(
  { state, reason }: Verdict,
  states: readonly CoordinatorState[],
): void {
  if (states.includes(state)) return
  if (reason === 'storage_unreachable') {
    const { text, hint } = reasonTexts.storage_unreachable
    throw coordinatorFault('coordinator.storage_unreachable', text, { hint })
  }
  const { text, hint } = reasonTexts[reason]
  throw coordinatorFault(
    'coordinator.not_in_this_state',
    `this needs a coordinator in ${states.join(' or ')}; it is in ${state} (${reason}): ${text}`,
    { hint: state === 'running' ? 'holdfast coordinator status' : hint },
  )
}

/** For each reason: what it means, and the next command. */
export const reasonTexts: Readonly<Record<ReasonCode, { text: string; hint: string }>> = {
  claim_needed: {
    text: 'new: nobody has claimed it',
    hint: 'holdfast coordinator claim, with the token in the file claim-token',
  },
  manifest_needed: { text: 'open, and waits for a manifest', hint: 'holdfast manifest set FILE' },
  open: { text: 'open and running', hint: 'holdfast manifest get' },
  key_missing: {
    text: 'sealed: no automatic way opened the data key',
    hint: 'holdfast coordinator recover, with enough holders',
  },
  key_mismatch: {
    text: 'sealed: a way opened, but to a key of another state',
    hint: 'restore one whole backup: holdfast coordinator restore',
  },
  header_invalid: {
    text: 'sealed: the header was altered or belongs to another identity',
    hint: 'restore one whole backup: holdfast coordinator restore',
  },
  rollback_suspected: {
    text: 'sealed: nodes have seen a newer state than this one',
    hint: 'restore the newest backup, or let the holders accept this one: holdfast coordinator accept-rollback',
  },
  storage_missing: {
    text: 'the store is empty but this directory belongs to a cluster',
    hint: 'holdfast coordinator restore BUNDLE',
  },
  storage_unreachable: {
    text: 'the store cannot be reached',
    hint: 'check the database and its address, then wait: it is tried again by itself',
  },
}

/** Where somebody has sealed it: no automatic way was tried since. */
export const sealedTexts: { text: string; hint: string } = {
  text: 'sealed by command: its holders open it, or a restart of this instance',
  hint: 'holdfast coordinator recover, with enough holders; or restart it',
}
