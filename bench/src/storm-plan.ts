import type { Target } from './load-plan.ts'
import type { Figures } from './statistics.ts'

// What a bench tells the storm's process, and what it reports back, as JSON on its standard streams.

export interface StormPlan {
  readonly targets: readonly Target[]
  readonly rounds: number
  /** By target: what each of its clients does, in turn. */
  readonly work: Readonly<Record<string, StormWork>>
}

/**
 * - `requests`: whole recovery requests as Latin-1 text, one connection each, all opened at once;
 * - `opens`: sealed secrets to open with everything that takes, `inFlight` at a time.
 */
export type StormWork =
  | { kind: 'requests'; requests: readonly string[] }
  | { kind: 'opens'; sealed: readonly string[]; inFlight: number; plaintext: string }

/**
 * One target in one round: seconds until the last was done, failures, p50 and p99 of one client in
 * milliseconds, cpuMs of the server for all of them.
 */
export type StormReport = Readonly<Record<string, Figures[]>>
