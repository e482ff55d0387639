import { messageOf } from '@holdfast/base'
import type { AgentFrame, NodeReport } from '@holdfast/protocol/frames'

// What a node says of itself without being asked: with its hello, and whenever something changes. The
// coordinator takes the report that came last for how the node stands, so that one must be the newest.
// Reports are made one at a time, because of two under way the older one could arrive last; and what
// changes while a hello is on its way, when nothing else can be sent yet, is told after it.

export interface ReportingDeps {
  /** How the node stands now; reading the volume for it takes its time. */
  report: () => Promise<NodeReport>
  /** Sent now or, without a session, not at all. */
  send: (frame: AgentFrame) => Promise<void>
  onFailure: (text: string) => void
}

export class Reporting implements AsyncDisposable {
  readonly #deps: ReportingDeps
  /** Changes so far, and how many of them the last hello can have in it. */
  #changes = 0
  #greeted = 0
  #telling: Promise<void> = Promise.resolve()
  #waiting = false
  #isOver = false

  constructor(deps: ReportingDeps) {
    this.#deps = deps
  }

  /** The report of a hello. */
  async greeting(): Promise<NodeReport> {
    this.#greeted = this.#changes
    return await this.#deps.report()
  }

  /** The coordinator has taken the hello in. */
  welcomed(): void {
    if (this.#changes !== this.#greeted) this.#tell()
  }

  /** The coordinator hears of it, as long as there is a session; the next hello has it too. */
  changed(): void {
    this.#changes += 1
    this.#tell()
  }

  /** Nothing is told after this, and nothing is being read for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true
    await this.#telling
  }

  /** One that has not begun yet says whatever has changed until then. */
  #tell(): void {
    if (this.#waiting || this.#isOver) return
    this.#waiting = true
    this.#telling = this.#telling.then(async () => {
      this.#waiting = false
      if (this.#isOver) return
      try {
        await this.#deps.send({ kind: 'report', report: await this.#deps.report() })
      } catch (error) {
        this.#deps.onFailure(messageOf(error))
      }
    })
  }
}
