import type { Enrolment } from '@holdfast/protocol/frames'
import type { GuardianSet } from './life-state.ts'

// What `life.ts` decides upon, and what it decides.

/** Something that happened to a node. */
export type LifeEvent =
  /** The agent has started; `open` says that the vault is still mapped. */
  | { kind: 'started'; open: boolean }
  | { kind: 'accepted'; enrolment: Enrolment }
  /** The coordinator orders a set of guardians. */
  | { kind: 'ordered'; set: GuardianSet }
  /**
   * What the disk carries: `ours` is a finished vault of this enrolment, `restored` a vault that was
   * wiped by panic 2 and whose header the holders have brought back.
   */
  | {
      kind: 'probed'
      found: 'nothing' | 'unfinished' | 'ours' | 'restored' | 'occupied'
      text: string
    }
  | { kind: 'formatted' }
  | { kind: 'closed' }
  /** `operator`: by a pushed key, not by the automatic ways. */
  | { kind: 'opened'; by?: 'operator' }
  | { kind: 'bound'; keyslot: number }
  | { kind: 'proven' }
  | { kind: 'dropped' }
  | { kind: 'handed_over' }
  | { kind: 'handover_refused'; text: string }
  | { kind: 'erased' }
  | { kind: 'forgotten' }
  | { kind: 'reported' }
  | { kind: 'failed'; text: string }
  | { kind: 'wrong_key' }
  | { kind: 'leave'; command: string; force?: boolean }
  | { kind: 'wipe'; command: string }
  | { kind: 'panic'; level: 1 | 2 | 3; command: string }

/** Something that is to be done. Every one of them bears being done twice. */
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
  | { kind: 'hand_over'; command: string; force?: boolean }
  /** Close the vault and write a receipt of it; nothing is destroyed. */
  | { kind: 'lock'; command: string }
  /** Destroy the keys, as the level says: 2 leaves the holders a sealed header, 3 leaves nothing. */
  | { kind: 'erase'; command: string; level: 1 | 2 | 3 }
  /** Destroy this node's identity and all it remembers; what starts after it is a new machine. */
  | { kind: 'forget'; command: string }
  | {
      kind: 'report'
      what: 'enrolled' | 'refused' | 'reshared' | 'left' | 'wiped' | 'locked'
      id: string
      text: string
    }
