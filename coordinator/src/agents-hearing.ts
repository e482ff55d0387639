import type { Clock } from '@holdfast/base'
import type { Hello, Report } from '@holdfast/link'
import type { Errands } from './agents-errands.ts'
import type { Held, HeldSessions } from './agents-held.ts'
import type { AgentLedger } from './agents-ledger.ts'
import type { Orders } from './agents-orders.ts'
import { recordAlone } from './audit.ts'
import { noteResult, type Result } from './commands.ts'
import { followEnrolment } from './enrolments.ts'
import { latestSessions } from './session-numbers.ts'
import type { Store } from './store.ts'

// What agents say, and where it goes: reports and progress into the ledger, which writes them in
// batches; results, incidents and the steps of an enrolment into the store before they are acknowledged.

export type Incident = Extract<Report, { kind: 'incident' }>

export interface HearingOptions {
  store: Store
  clock: Clock
  held: HeldSessions
  ledger: AgentLedger
  errands: Errands
  orders: Orders
  /** What decides about guardians has changed. */
  onMoved: () => void
  onIncident: (node: string, frame: Incident) => Promise<void>
}

/** A node that cries all the time must not fill the log; the first thirty of a minute say enough. */
const incidentsPerMinute = 30

/** The incidents of this minute, by node and not by session: whoever comes again goes on counting. */
class IncidentCount {
  #minute = Number.NaN
  readonly #counts = new Map<string, number>()

  /** Counts one; false when it is one too many. */
  take(whose: string, now: number): boolean {
    const minute = Math.floor(now / 60_000)
    if (minute !== this.#minute) this.#counts.clear()
    this.#minute = minute
    const count = (this.#counts.get(whose) ?? 0) + 1
    this.#counts.set(whose, count)
    return count <= incidentsPerMinute
  }
}

export class Hearing {
  readonly #options: HearingOptions
  readonly #incidents = new IncidentCount()

  constructor(options: HearingOptions) {
    this.#options = options
  }

  /** Takes in what the agent of this node says; again, when it says it again. */
  async take(node: string, frame: Report): Promise<void> {
    const { held: sessions, ledger, errands } = this.#options
    const held = sessions.get(node)
    if (held === undefined) return
    switch (frame.kind) {
      case 'report':
        return await this.report(held, frame.report)
      case 'progress':
        return await ledger.tell(node, frame.command, { progress: progressText(frame) })
      case 'output':
        return await ledger.tell(node, frame.command, { output: frame.text })
      case 'result':
        return await this.#result(node, frame)
      case 'incident':
        return await this.#incident(node, frame)
      case 'ward-key':
        return await errands.takeKey(node, frame)
      default:
        return frame satisfies never
    }
  }

  async report(held: Held, report: Hello['report']): Promise<void> {
    this.#notice(held, report)
    const { store, clock, ledger } = this.#options
    const { node } = held.session
    const { number } = held
    if (!held.enrolling) return ledger.note(node, number, { report })
    const state = await store.write(async (work) =>
      (await latestSessions(work, [node])).get(node) === number
        ? await followEnrolment(work, clock, node, report)
        : 'earlier',
    )
    if (state === 'earlier') return
    if (state === 'failed') return held.session.close(4410, 'the enrolment has failed')
    held.enrolling = state !== undefined && state !== 'enrolled'
    if (held.enrolling) return ledger.note(node, number, { report, phase: 'enrolling' })
    ledger.note(node, number, { report, phase: report.phase })
    if (state === 'enrolled') await ledger.flush()
  }

  /** Two live agents with one identity: a copied disk. */
  async twin(node: string, where: string): Promise<void> {
    if (!this.#options.held.has(node)) return
    const text = `a second agent with this identity tried to connect from ${where}`
    const at = this.#options.clock.now()
    // Counted apart: what a thief's agent says must not leave this one unsaid.
    await this.#incident(node, { kind: 'incident', code: 'node.twin_seen', text, at }, 'twin')
  }

  /** What decides about guardians has changed: it is looked at at once. */
  #notice(held: Held, { phase, epoch, guardians }: Hello['report']): void {
    const stand = [phase, epoch, ...guardians].join()
    if (held.stand === stand) return
    held.stand = stand
    this.#options.onMoved()
  }

  async #result(node: string, result: Result): Promise<void> {
    const { store, clock, ledger, errands, orders } = this.#options
    if (await errands.takeResult(node, result)) return
    await ledger.flush()
    await store.write((work) => noteResult(work, clock, node, result))
    orders.answered(node, result.command)
  }

  async #incident(node: string, incident: Incident, by = 'agent'): Promise<void> {
    const { store, clock, onIncident } = this.#options
    if (!this.#incidents.take(`${by} ${node}`, clock.now())) return
    const { code, text, at } = incident
    await recordAlone(store, clock, {
      actor: `node:${node}`,
      action: 'node.incident',
      subject: node,
      outcome: 'failed',
      data: { code, text, at },
    })
    await onIncident(node, incident)
  }
}

function progressText({ text, done, of }: Extract<Report, { kind: 'progress' }>): string {
  return done === undefined || of === undefined ? text : `${text} (${done} of ${of})`
}
