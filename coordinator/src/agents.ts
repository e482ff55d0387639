import { createPrivateKey, type KeyObject } from 'node:crypto'
import type { Server } from 'node:https'
import { type Clock, isFault } from '@holdfast/base'
import {
  type Acceptor,
  acceptSessions,
  type CoordinatorSession,
  type Hello,
  serverTls,
} from '@holdfast/link'
import { Admission } from './agents-admission.ts'
import { DocumentFeed } from './agents-documents.ts'
import { Errands } from './agents-errands.ts'
import { Hearing, type Incident } from './agents-hearing.ts'
import { HeldSessions } from './agents-held.ts'
import { AgentLedger } from './agents-ledger.ts'
import { Orders } from './agents-orders.ts'
import { forgetHeld, Presence } from './agents-presence.ts'
import type { Coordinator } from './coordinator.ts'
import { isEnrolling } from './enrolments.ts'

// The agents that this instance holds. Every instance asks the store once a second what there is to
// tell them, so a command or a document given to any instance reaches the one that holds the agent,
// and an instance that dies takes nothing with it: its agents come to another, which sends whatever
// has no result yet. Here a session begins and ends; the parts do the rest:
//   agents-admission   who is let in            agents-held       the sessions themselves
//   agents-hearing     what agents say          agents-ledger     what of it is written in batches
//   agents-documents   signed documents         agents-orders     people's commands
//   agents-errands     re-shares' own orders    agents-presence   who is here, for other instances

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

export class Agents implements AsyncDisposable {
  readonly #options: AgentsOptions
  readonly #held = new HeldSessions()
  readonly #ledger: AgentLedger
  readonly #acceptor: Acceptor
  readonly #admission: Admission
  readonly #errands: Errands
  readonly #orders: Orders
  readonly #documents: DocumentFeed
  readonly #hearing: Hearing
  readonly #presence: Presence
  #onMoved: () => void = () => undefined

  private constructor(options: AgentsOptions) {
    this.#options = options
    const { coordinator, clock, instance } = options
    const { store } = coordinator
    const held = this.#held
    const signer = () => this.signer()
    const onError = (error: unknown) => options.onError?.(error)
    const isHeld = (node: string) => held.has(node)
    const deliver: HeldSessions['deliver'] = (node, frame) => held.deliver(node, frame)
    const onMoved = () => this.#onMoved()
    const cluster = () => coordinator.header?.cluster ?? ''
    this.#ledger = new AgentLedger({ store, clock, instance, isHeld, signer })
    this.#errands = new Errands({
      ...{ store, clock, instance, cluster, signer, deliver, isHeld, onMoved, onError },
    })
    this.#orders = new Orders({ store, clock, signer, deliver, onError })
    this.#documents = new DocumentFeed({ store, clock, held, onError })
    this.#hearing = new Hearing({
      ...{ store, clock, held, onMoved },
      ...{ ledger: this.#ledger, errands: this.#errands, orders: this.#orders },
      onIncident: async (node, frame) => await options.onIncident?.(node, frame),
    })
    const onTwin = (node: string, where: string) =>
      this.#inBackground(this.#hearing.twin(node, where))
    this.#presence = new Presence({ store, clock, instance, held, ledger: this.#ledger, onTwin })
    this.#admission = new Admission(coordinator, clock, this.heartbeatSeconds)
    this.#acceptor = acceptSessions({
      server: options.server,
      clock,
      heartbeatSeconds: this.heartbeatSeconds,
      admit: (node, hello) => this.#admission.admit(node, hello),
      onOpen: (session, hello) => this.#open(session, hello),
      onFrame: (session, frame) => this.#hearing.take(session.node, frame),
      onClose: (session) => this.#close(session),
      onTwin: (session, remote) => onTwin(session.node, remote),
    })
  }

  /** Begins to take agents in on the server. */
  static async start(options: AgentsOptions): Promise<Agents> {
    await forgetHeld(options.coordinator.store, options.instance)
    const agents = new Agents(options)
    agents.recogniseNodes()
    await agents.#documents.begin()
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
    return this.#held.count
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
    await this.#held.deliver(node, frame)
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
    await this.#documents.send()
    await this.#orders.send()
    // After the documents: a guardian knows its ward before it is asked for a key.
    if (this.coordinator.state === 'running') await this.#errands.send()
  }

  /** Writes down who was heard since the last time, and lets go of nodes that were removed. */
  async writeHeard(): Promise<void> {
    await this.#presence.writeHeard()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#acceptor[Symbol.asyncDispose]()
    await this.#ledger.flush().catch(() => undefined) // a store that is gone has nothing to tell
  }

  async #open(session: CoordinatorSession, hello: Hello): Promise<void> {
    const { node } = session
    const held = this.#held.add(session)
    if (!(await this.#presence.claim(held))) return
    this.#ledger.note(node, held.number, { witnessed: this.#admission.witness().generation })
    held.enrolling = await isEnrolling(this.coordinator.store.read, node)
    await this.#hearing.report(held, hello.report)
    await this.#documents.sendAll(held)
    if (this.#held.get(node) !== held) return // gone meanwhile
    this.#orders.begin(node, held.number)
    this.#inBackground(this.#orders.send())
  }

  #close(session: CoordinatorSession): void {
    const held = this.#held.get(session.node)
    if (held === undefined || !this.#held.remove(session)) return
    this.#errands.forget(session.node)
    this.#orders.forget(session.node)
    // One that has no number yet is let go of when it gets it.
    if (held.number > 0) this.#ledger.note(session.node, held.number)
  }

  #inBackground(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      // An agent that went away while it was told something is nothing to report.
      if (!isFault(error, 'link.session_closed')) this.#options.onError?.(error)
    })
  }
}
