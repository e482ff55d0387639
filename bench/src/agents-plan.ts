import type { Figures } from './statistics.ts'

// What the bench tells the process that holds the agents, and what that answers, over Node's channel
// between a process and its child.

export type AgentsOrder =
  /** Begins all sessions, `inFlight` at a time; without it all at once. */
  | { do: 'connect'; agentsFile: string; url: string; identity: string; inFlight?: number }
  /** Counts from now on when each agent is back, until all are or `seconds` are over. */
  | { do: 'await-all'; seconds: number }
  /** Sends heartbeats at an even pace besides those that the sessions send by themselves. */
  | { do: 'beat'; perSecond: number; seconds: number }
  /** The next one as soon as one was acknowledged, `inFlight` at a time. */
  | { do: 'saturate'; frame: 'heartbeat' | 'report'; inFlight: number; seconds: number }
  /** Counts documents of this name from now on. */
  | { do: 'expect-document'; name: string }
  /** How many of those have arrived once every agent has one, or `seconds` are over, and when the last did. */
  | { do: 'await-document'; name: string; seconds: number }
  /** Every so-manieth agent is gone for good, the first one included. */
  | { do: 'lose'; every: number }
  /** Until every ward of the lost ones has proven another set, or `seconds` are over. */
  | { do: 'await-reshared'; seconds: number }
  | { do: 'stop' }

export interface AgentsAnswer {
  readonly figures: Figures
  /** Why not, when something went wrong. */
  readonly failure?: string
}
