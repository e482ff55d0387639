import { createPrivateKey, type KeyObject } from 'node:crypto'
import type { Server } from 'node:https'
import { type Clock, isFault } from '@holdfast/base'
import {
  type Acceptor,
  acceptSessions,
  type CoordinatorSession,
  type Hello,
  type Report,
  serverTls,
} from '@holdfast/link'
import { Admission } from './agents-admission.ts'
import { Errands } from './agents-errands.ts'
import { AgentLedger } from './agents-ledger.ts'
import { Orders } from './agents-orders.ts'
import { recordAlone } from './audit.ts'
import { noteResult, type Result } from './commands.ts'
import type { Coordinator } from './coordinator.ts'
import { followEnrolment, isEnrolling } from './enrolments.ts'
import { documentsAfter, documentsFor, newestVersion } from './nodes-documents.ts'
import { nodeFault } from './nodes-faults.ts'

// The agents that this instance holds. Every instance asks the store once a second what there is to
// tell them, so a command or a document given to any instance reaches the one that holds the agent,
// and an instance that dies takes nothing with it: its agents come to another, which sends whatever
// has no result yet.

export type Incident = Extract<Report, { kind: 'incident' }>

export interface AgentsOptions {
  coordinator: Coordinator
  server: Server
  clock: Clock
  /** This instance's name, unique among those that share the store. */
  instance: string
  heartbeatSeconds?: number
  onIncident?: (node: string, frame: Incident) => Promise<void>
  /** Something could not be sent or written; it is tried again later. */
  onError?: (error: unknown) => void
}

interface Held {
  session: CoordinatorSession
  enrolling: boolean
  /** Phase, epoch and guardians as last reported. */
  stand: string
  /** `heardAt` as it was last written down. */
  written: number
  incidents: { minute: number; count: number }
}

const incidentsPerMinute = 30

export class Agents implements AsyncDisposable {
  readonly #options: AgentsOptions
  readonly #held = new Map<string, Held>()
  readonly #ledger: AgentLedger
  readonly #acceptor: Acceptor
  readonly #admission: Admission
  readonly #errands: Errands
  readonly #orders: Orders
  #onMoved: () => void = () => undefined
  #newest = 0

  private constructor(options: AgentsOptions) {
    this.#options = options
    const { coordinator, clock, instance } = options
    this.#ledger = new AgentLedger({
      store: coordinator.store,
      clock,
      instance,
      isHeld: (node) => this.#held.has(node),
      signer: () => this.signer(),
    })
    this.#errands = new Errands({
      ...{ store: coordinator.store, clock, instance },
      cluster: () => coordinator.header?.cluster ?? '',
      signer: () => this.signer(),
      deliver: (node, frame) => this.deliver(node, frame),
      isHeld: (node) => this.#held.has(node),
      onMoved: () => this.#onMoved(),
      onError: (error) => options.onError?.(error),
    })
    this.#orders = new Orders({
      ...{ store: coordinator.store, clock },
      signer: () => this.signer(),
      deliver: (node, frame) => this.deliver(node, frame),
      onError: (error) => options.onError?.(error),
    })
    this.#admission = new Admission(coordinator, clock, this.heartbeatSeconds)
    this.#acceptor = acceptSessions({
      server: options.server,
      clock,
      heartbeatSeconds: this.heartbeatSeconds,
      admit: (node, hello) => this.#admission.admit(node, hello),
      onOpen: (session, hello) => this.#open(session, hello),
      onFrame: (session, frame) => this.#take(session.node, frame),
      onClose: (session) => this.#close(session),
      onTwin: (session, remote) => this.#twin(session.node, remote),
    })
  }

  /** Begins to take agents in on the server. */
  static async start(options: AgentsOptions): Promise<Agents> {
    const { store } = options.coordinator
    // What this instance held before it was killed it does not hold any more.
    await store.write((work) =>
      work
        .updateTable('nodes')
        .set({ instance: null })
        .where('instance', '=', options.instance)
        .execute(),
    )
    const agents = new Agents(options)
    agents.recogniseNodes()
    agents.#newest = await newestVersion(store.read)
    return agents
  }

  get heartbeatSeconds(): number {
    return this.#options.heartbeatSeconds ?? 20
  }

  /** Milliseconds without a word after which a node counts as not connected. */
  get silence(): number {
    return this.heartbeatSeconds * 5_000
  }

  /** Milliseconds since 1970 by this instance's clock. */
  get now(): number {
    return this.#options.clock.now()
  }

  get coordinator(): Coordinator {
    return this.#options.coordinator
  }

  get count(): number {
    return this.#held.size
  }

  holds(node: string): boolean {
    return this.#held.has(node)
  }

  /** Whom to tell when nodes have answered errands, or stand otherwise than before. */
  onMoved(listener: () => void): void {
    this.#onMoved = listener
  }

  /** Writes down what agents have said so far. */
  async flush(): Promise<void> {
    await this.#ledger.flush()
  }

  /** Lets the server ask for certificates of the fleet's authority; again after claiming. */
  recogniseNodes(): void {
    const { coordinator, server } = this.#options
    const { identity, header } = coordinator
    server.setSecureContext(serverTls(identity, header?.authority))
  }

  /** Sends a frame to an agent that this instance holds. @throws Fault node.not_connected, link.session_closed */
  async deliver(node: string, frame: Parameters<CoordinatorSession['deliver']>[0]): Promise<void> {
    const held = this.#held.get(node)
    if (held === undefined)
      throw nodeFault('node.not_connected', `${node} is not connected to this instance`)
    await held.session.deliver(frame)
  }

  /** Ends a node's session, if this instance holds it. */
  dismiss(node: string, why: string): void {
    this.#held.get(node)?.session.close(4410, why)
  }

  /** The key that signs commands and documents; undefined while the coordinator is sealed. */
  async signer(): Promise<{ key: KeyObject; cluster: string } | undefined> {
    const { coordinator } = this.#options
    const { header, state } = coordinator
    if (header === undefined || state !== 'running') return undefined
    using pem = await coordinator.secret('command-key')
    return { key: createPrivateKey(pem.reveal()), cluster: header.cluster }
  }

  /** One look into the store: sends what is new, writes down what was heard. */
  async look(): Promise<void> {
    await this.#ledger.flush()
    await this.#sendDocuments()
    await this.#orders.send()
    // After the documents: a guardian knows its ward before it is asked for a key.
    if (this.coordinator.state === 'running') await this.#errands.send()
  }

  /** Writes down who was heard since the last time, and lets go of nodes that were removed. */
  async writeHeard(): Promise<void> {
    const { store } = this.#options.coordinator
    const heard = [...this.#held].filter(([, { session, written }]) => session.heardAt > written)
    for (let start = 0; start < heard.length; start += 500) {
      const part = heard.slice(start, start + 500)
      const nodes = part.map(([node]) => node)
      const { instance } = this.#options
      const known = await store.write(
        async (work) =>
          await work
            .updateTable('nodes')
            .set({ heard_at: this.now })
            .where('node', 'in', nodes)
            .where('instance', '=', instance)
            .returning('node')
            .execute(),
      )
      const ours = new Set(known.map(({ node }) => node))
      for (const [node, held] of part) {
        if (ours.has(node)) held.written = held.session.heardAt
        else await this.#lost(node)
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#acceptor[Symbol.asyncDispose]()
    await this.#ledger.flush().catch(() => undefined) // a store that is gone has nothing to tell
  }

  async #open(session: CoordinatorSession, hello: Hello): Promise<void> {
    const { node } = session
    const { read } = this.#options.coordinator.store
    const held: Held = {
      session,
      enrolling: true, // until the store says otherwise
      stand: '',
      written: 0,
      incidents: { minute: 0, count: 0 },
    }
    this.#held.set(node, held)
    this.#ledger.note(node, { claim: true, witnessed: this.#admission.witness().generation })
    held.enrolling = await isEnrolling(read, node)
    await this.#report(node, held, hello.report)
    for (const { frame } of await documentsFor(read, node)) this.#send(held, frame)
    if (this.#held.get(node) !== held) return // gone meanwhile
    this.#orders.begin(node)
    this.#inBackground(this.#orders.send())
  }

  #close(session: CoordinatorSession): void {
    if (this.#held.get(session.node)?.session !== session) return
    this.#held.delete(session.node)
    this.#errands.forget(session.node)
    this.#orders.forget(session.node)
    this.#ledger.note(session.node)
  }

  async #take(node: string, frame: Report): Promise<void> {
    const held = this.#held.get(node)
    if (held === undefined) return
    switch (frame.kind) {
      case 'report':
        return await this.#report(node, held, frame.report)
      case 'progress':
        return await this.#ledger.tell(node, frame.command, { progress: progressText(frame) })
      case 'output':
        return await this.#ledger.tell(node, frame.command, { output: frame.text })
      case 'result':
        return await this.#result(node, frame)
      case 'incident':
        return await this.#incident(node, held, frame)
      case 'ward-key':
        return await this.#errands.takeKey(node, frame)
      default:
        return frame satisfies never
    }
  }

  async #report(node: string, held: Held, report: Hello['report']): Promise<void> {
    this.#notice(held, report)
    if (!held.enrolling) return this.#ledger.note(node, { report })
    const { coordinator, clock } = this.#options
    const state = await coordinator.store.write((work) =>
      followEnrolment(work, clock, node, report),
    )
    if (state === 'failed') return held.session.close(4410, 'the enrolment has failed')
    held.enrolling = state !== undefined && state !== 'enrolled'
    if (held.enrolling) return this.#ledger.note(node, { report, phase: 'enrolling' })
    this.#ledger.note(node, { report, phase: report.phase })
    if (state === 'enrolled') await this.#ledger.flush()
  }

  /** What decides about guardians has changed: it is looked at at once. */
  #notice(held: Held, { phase, epoch, guardians }: Hello['report']): void {
    const stand = [phase, epoch, ...guardians].join()
    if (held.stand === stand) return
    held.stand = stand
    this.#onMoved()
  }

  async #result(node: string, result: Result): Promise<void> {
    const { coordinator, clock } = this.#options
    if (await this.#errands.takeResult(node, result)) return
    await this.#ledger.flush()
    await coordinator.store.write((work) => noteResult(work, clock, node, result))
    this.#orders.answered(node, result.command)
  }

  async #incident(node: string, held: Held, incident: Incident): Promise<void> {
    const minute = Math.floor(this.now / 60_000)
    if (held.incidents.minute !== minute) held.incidents = { minute, count: 0 }
    held.incidents.count += 1
    // A node that cries all the time must not fill the log; the first thirty say enough.
    if (held.incidents.count > incidentsPerMinute) return
    const { code, text, at } = incident
    const { coordinator, clock } = this.#options
    await recordAlone(coordinator.store, clock, {
      actor: `node:${node}`,
      action: 'node.incident',
      subject: node,
      outcome: 'failed',
      data: { code, text, at },
    })
    await this.#options.onIncident?.(node, incident)
  }

  /** Two live agents with one identity: a copied disk. */
  #twin(node: string, remote: string): void {
    const held = this.#held.get(node)
    if (held === undefined) return
    const text = `a second agent with this identity tried to connect from ${remote}`
    const incident = { kind: 'incident', code: 'node.twin_seen', text, at: this.now } as const
    this.#inBackground(this.#incident(node, held, incident))
  }

  /** Another instance holds the node, or nobody knows it any more. */
  async #lost(node: string): Promise<void> {
    const row = await this.#options.coordinator.store.read
      .selectFrom('nodes')
      .select('instance')
      .where('node', '=', node)
      .executeTakeFirst()
    const held = this.#held.get(node)
    if (held === undefined || row?.instance === this.#options.instance) return
    if (row === undefined) return held.session.close(4410, 'the node was removed')
    // Not written down yet, or given up by mistake: claim it again.
    if (row.instance === null) return this.#ledger.note(node)
    if (await held.session.isAlive(3_000)) this.#twin(node, `instance ${row.instance}`)
    held.session.close(4409, 'another instance has a later session')
  }

  async #sendDocuments(): Promise<void> {
    const { read } = this.#options.coordinator.store
    const fresh = await documentsAfter(read, this.#newest)
    for (const { node, frame } of fresh) {
      this.#newest = Math.max(this.#newest, frame.version)
      const receivers = node === undefined ? this.#held.values() : [this.#held.get(node)]
      for (const held of receivers) if (held !== undefined) this.#send(held, frame)
    }
  }

  /** Best effort: whoever is not there any more gets it when it comes back. */
  #send(held: Held, frame: Parameters<CoordinatorSession['send']>[0]): void {
    held.session.send(frame).catch(() => undefined)
  }

  #inBackground(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      // An agent that went away while it was told something is nothing to report.
      if (!isFault(error, 'link.session_closed')) this.#options.onError?.(error)
    })
  }
}

function progressText({ text, done, of }: Extract<Report, { kind: 'progress' }>): string {
  return done === undefined || of === undefined ? text : `${text} (${done} of ${of})`
}
