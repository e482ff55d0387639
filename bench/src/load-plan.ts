import type { Mode } from './client.ts'
import type { Figures } from './statistics.ts'

// What a bench tells the load generator's process, and what it reports back, as JSON on its standard
// streams. One process measures all servers, so that its own compiled code is equally warm for each.

/** A server to measure. */
export interface Target {
  readonly name: string
  readonly port: number
  /** The process whose tree the processor time is read of. */
  readonly pid: number
}

export interface LoadPlan {
  readonly targets: readonly Target[]
  /** Whole requests as Latin-1 text, used in turn: many different points, never one repeated. */
  readonly requests: readonly string[]
  readonly mode: Mode
  /** Requests in flight. */
  readonly concurrency: number
  readonly rounds: number
  /** Length of one counted stretch, and of the uncounted one before it. */
  readonly seconds: number
  readonly warmUpSeconds: number
}

/**
 * One target in one round: requestsPerSecond, cpuMicrosPerRequest (server), p50 and p99 in
 * milliseconds, requests, failures, clientCpuMicrosPerRequest.
 */
export type RoundFigures = Figures

/** Rounds by target name, in order. */
export type LoadReport = Readonly<Record<string, RoundFigures[]>>
