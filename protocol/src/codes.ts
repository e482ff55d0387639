/** Why a coordinator is in the state it is in. Stable; see docs/operator/coordinator.md. */
export const reasonCodes = [
  'claim_needed',
  'manifest_needed',
  'open',
  'key_missing',
  'key_mismatch',
  'header_invalid',
  'rollback_suspected',
  'storage_missing',
  'storage_unreachable',
] as const
export type ReasonCode = (typeof reasonCodes)[number]

export const coordinatorStates = ['uninitialised', 'recovery', 'ready', 'running'] as const
export type CoordinatorState = (typeof coordinatorStates)[number]

/** Ceremonies: several people, one thing. */
export const ceremonyKinds = ['recovery', 'holders', 'dismissal', 'manifest', 'rollback'] as const
export type CeremonyKind = (typeof ceremonyKinds)[number]

export const ceremonyStates = ['open', 'met', 'done', 'expired', 'cancelled'] as const
export type CeremonyState = (typeof ceremonyStates)[number]

/** A node's life. */
export const nodePhases = [
  'factory',
  'enrolling',
  'locked',
  'open',
  'rescue',
  'left',
  'wiped',
] as const
export type NodePhase = (typeof nodePhases)[number]

/** What a node can be told to do. There is no shell. Freezing is told to its guardians instead. */
export const commandKinds = [
  'status',
  'services',
  'restart',
  'logs',
  'reboot',
  'rehearse',
  'rekey',
  'unlock',
  'leave',
  'reset',
  'panic',
  'first-boot',
] as const
export type CommandKind = (typeof commandKinds)[number]
