import type { AgentSession, Hello, Welcome } from '@holdfast/link'
import type { AgentFrame, NodeReport } from '@holdfast/protocol/frames'
import type { FleetAgent } from './agents-fleet.ts'

/** One of the many agents in a process: who it is, and its session. */
export class LoadAgent {
  readonly facts: FleetAgent
  session: AgentSession | undefined
  isOpen = false
  report: NodeReport
  /** What an agent keeps of the last welcome, to say it in its next hello. */
  witnessed: Pick<Hello, 'witnessed'> = {}

  constructor(facts: FleetAgent) {
    this.facts = facts
    this.report = facts.report
  }

  /** Kept until a coordinator has it. */
  tell(frame: AgentFrame): void {
    this.session?.deliver(frame).catch(() => undefined) // the bench is over
  }

  welcomed({ cluster, generation, proof }: Welcome): void {
    this.witnessed = { witnessed: { cluster, generation, proof } }
  }
}
