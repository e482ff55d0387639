import type { Command } from './fleet.ts'
import type { Evidence, Timeline } from './timeline.ts'

/** A disaster, executed for real. */
export interface Drill {
  readonly name: string
  readonly title: string
  /** What happens and what is proven, in one or two sentences. */
  readonly summary: string
  run(stage: Stage): Promise<void>
}

/** What a drill is given. */
export interface Stage {
  /** An empty directory of its own, removed afterwards. */
  readonly directory: string
  readonly command: Command
  readonly coordinator: Command
  readonly agent: Command
  readonly timeline: Timeline
  /** Aborted when the drill's time is up. */
  readonly signal: AbortSignal
  /** What is started is put here; it is stopped when the drill ends, however it ends. */
  readonly cleanup: AsyncDisposableStack
}

export interface DrillResult {
  name: string
  passed: boolean
  seconds: number
  evidence: readonly Evidence[]
  /** Why it did not pass. */
  problem?: { code: string; message: string }
}

export interface DrillContext {
  /** Where scratch directories are made. */
  directory: string
  /** Runs a key server, see fleet.ts. */
  command: Command
  /** Runs a coordinator, see coordinator-process.ts. */
  coordinator: Command
  /** Runs an agent, see fleet-node.ts. */
  agent: Command
  /** Called as things happen. */
  onEvent?: (evidence: Evidence) => void
  signal?: AbortSignal
  /** Milliseconds. Default 120 000. */
  timeout?: number
  /** Milliseconds that a drill has to end by itself once it is stopped. Default 10 000. */
  grace?: number
}
