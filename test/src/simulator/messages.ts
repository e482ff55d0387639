import type { GuardianSet } from '@holdfast/agent'
import type { NodePhase } from '@holdfast/protocol'

// What agents and coordinator say to each other, as far as their state machines can tell: the frames of
// protocol/src/frames.ts without what only cryptography looks at.

interface ReportedWay {
  keyslot: number
  purpose: 'automatic' | 'recovery'
  label: string
  state: 'proven' | 'not_tried'
}

/** What `nodeReportSchema` has that decisions depend on. */
export interface Report {
  phase: NodePhase
  epoch: number
  threshold: number
  guardians: string[]
  ways: ReportedWay[]
}

export type Told =
  | { kind: 'hello'; report: Report }
  | { kind: 'report'; report: Report }
  | { kind: 'ward-key'; ward: string; epoch: number; key: string }
  | { kind: 'result'; id: string; ok: boolean; code?: string }

export type Instruction =
  | { kind: 'ward'; action: 'prepare' | 'retire'; ward: string; epoch: number; id: string }
  | { kind: 'reshare'; set: GuardianSet }
  | { kind: 'command'; id: string; command: SimulatedCommand }
  | { kind: 'freeze'; version: number; frozen: readonly string[] }

/** `act` stands for every command that does something once, such as restarting a service. */
export type SimulatedCommand = 'act' | 'reboot' | 'leave' | 'reset'

/** With a number, the other end says when it has taken the message in. */
export type ToCoordinator = { message: Told; number?: number }
export type ToNode =
  | { message: Instruction }
  | { ack: number }
  | { refused: string }
  | { welcome: true }

/** Exchange keys are names here; everything else of a guardian is what the schema wants. */
export function keyOf(set: GuardianSet, guardian: string): string {
  return String(set.guardians.find(({ node }) => node === guardian)?.key.kid ?? '')
}
