import type { Figures } from './statistics.ts'

// What the bench of the unlock storm tells its two kinds of processes.

/** A node with real keys and a certificate of the fleet. */
export interface StormNode {
  readonly node: string
  /** PEM, PKCS#8. */
  readonly key: string
  /** PEM. */
  readonly certificate: string
  readonly identity: string
}

/** A guardian process: serves the shares of all wards. */
export interface GuardianPlan {
  readonly directory: string
  readonly self: StormNode
  /** PEM of the fleet's authority. */
  readonly authority: string
  readonly wards: readonly { readonly node: string; readonly identity: string }[]
}

/** Written by a guardian when it listens: the keys by ward. */
export interface GuardianReady {
  readonly port: number
  readonly keys: Readonly<Record<string, Record<string, unknown>>>
}

export interface UnlockPlan {
  readonly authority: string
  readonly wards: readonly StormNode[]
  readonly guardians: readonly (StormNode & { readonly ready: GuardianReady })[]
  readonly threshold: number
  /** Wards under way at a time. */
  readonly inFlight: number
  readonly rounds: number
}

/** One round: seconds until all were open, p50 and p99 of one ward in ms, failures. */
export type UnlockReport = readonly Figures[]
