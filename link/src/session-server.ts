import type { IncomingMessage } from 'node:http'
import type { Server } from 'node:https'
import type { Duplex } from 'node:stream'
import type { Clock } from '@holdfast/base'
import {
  type AgentFrame,
  agentFrameSchema,
  agentPath,
  type CoordinatorFrame,
} from '@holdfast/protocol/frames'
import { type WebSocket, WebSocketServer } from 'ws'
import { Channel, parserOf, sessionClosed } from './channel.ts'
import type { CloseCode, Closed } from './close-reasons.ts'
import { paceHandshakes } from './handshake-pace.ts'
import { Outbox } from './outbox.ts'
import type { Hello, Welcome } from './session.ts'
import { nodeOf } from './tls.ts'

// The coordinator's side. A session belongs to the node whose certificate the TLS connection has
// proven; what a frame claims is only compared with it. One node has one session: a second one is
// let in only when the first no longer answers, because two live ones mean a copied disk.

/** What a coordinator has to act on; the session answers the rest. */
export type Report = Exclude<AgentFrame, Hello | { kind: 'heartbeat' }>

/** Thrown by `admit` to send an agent away. */
export class SessionRefused extends Error {
  readonly code: CloseCode

  constructor(code: CloseCode, text: string) {
    super(text)
    this.code = code
  }
}

export interface CoordinatorSession {
  readonly node: string
  /** The address that the agent connects from. */
  readonly remote: string
  /** Like `heardAt` on a scale that only ever goes forward: milliseconds of `monotonic`. */
  readonly openedAt: number
  /** When it was last heard, by any frame. */
  readonly heardAt: number
  /** Sends now or not at all. @throws Fault link.session_closed */
  send(frame: CoordinatorFrame): Promise<void>
  /** Resolves when the agent has taken the frame in. @throws Fault link.session_closed */
  deliver(frame: CoordinatorFrame): Promise<void>
  /** True when it answers within the given milliseconds. */
  isAlive(within: number): Promise<boolean>
  close(code: CloseCode, text: string): void
}

export interface AcceptOptions {
  server: Server
  clock: Clock
  /** Milliseconds that only ever go forward: a clock that is set must not end every session. */
  monotonic?: () => number
  /** How often an agent must be heard. */
  heartbeatSeconds: number
  /** Decides whether the node may come in. Throws SessionRefused to send it away. */
  admit(node: string, hello: Hello, remote: string): Promise<Welcome>
  onOpen(session: CoordinatorSession, hello: Hello): Promise<void> | void
  /** Must bear the same frame twice. */
  onFrame(session: CoordinatorSession, frame: Report): Promise<void> | void
  onClose(session: CoordinatorSession, closed: Closed): void
  /** Two live agents with one identity: the second one was refused. */
  onTwin(session: CoordinatorSession, remote: string): void
  /** The most sessions at once. Default 20 000. */
  most?: number
}

export interface Acceptor extends AsyncDisposable {
  /** By node; some of them may not have been welcomed yet. */
  readonly sessions: ReadonlyMap<string, CoordinatorSession>
}

/** Output frames carry 64 KiB of text, which quoting can make six times as long. */
const largestMessage = 512 * 1024
const outboxLimit = 16 * 1024 * 1024
const helloWithin = 10_000
const twinProbe = 3_000
/** Connections of one node that are not let in yet: each costs a probe of the one that is. */
const mostUndecided = 4
const parse = parserOf(agentFrameSchema)

/** Takes agents' sessions on `agentPath` of an HTTPS server made with `serverTls`. */
export function acceptSessions(options: AcceptOptions): Acceptor {
  return new SessionAcceptor(options)
}

function monotonicOf({ monotonic = () => performance.now() }: AcceptOptions): () => number {
  return monotonic
}

class SessionAcceptor implements Acceptor {
  readonly sessions = new Map<string, Session>()
  /** Connections that have not said who they are; the oldest first. */
  readonly #strangers = new Set<Session>()
  /** How many connections of each node are neither let in nor ended. */
  readonly #undecided = new Map<string, number>()
  readonly #options: AcceptOptions
  readonly #socketServer: WebSocketServer
  readonly #pace: Disposable
  readonly #stop = new AbortController()
  readonly #upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void

  constructor(options: AcceptOptions) {
    this.#options = options
    this.#socketServer = new WebSocketServer({
      noServer: true,
      perMessageDeflate: false,
      maxPayload: largestMessage,
    })
    this.#upgrade = (request, socket, head) => this.#accept(request, socket, head)
    options.server.on('upgrade', this.#upgrade)
    this.#pace = paceHandshakes(options.server)
    void this.#sweep()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    this.#options.server.off('upgrade', this.#upgrade)
    this.#pace[Symbol.dispose]()
    const sessions = new Set([...this.sessions.values(), ...this.#strangers])
    for (const session of sessions) session.close(1001, 'this coordinator stops')
    await Promise.all([...sessions].map((session) => session.channel.closed))
    this.#socketServer.close()
  }

  #accept(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { server, most = 20_000 } = this.#options
    if (request.url !== agentPath) {
      // Somebody else may serve other paths of the same server.
      if (server.listenerCount('upgrade') === 1) refuse(socket, '404 Not Found')
      return
    }
    const node = nodeOf(request.socket)
    if (node === undefined || this.sessions.size >= most) {
      refuse(socket, node === undefined ? '401 Unauthorized' : '503 Service Unavailable')
      return
    }
    const undecided = this.#undecided.get(node) ?? 0
    if (undecided >= mostUndecided) {
      refuse(socket, '429 Too Many Requests')
      return
    }
    const remote = request.socket.remoteAddress ?? ''
    this.#socketServer.handleUpgrade(request, socket, head, (webSocket) => {
      const session = new Session(webSocket, node, remote, this.#options, this)
      this.#strangers.add(session)
      this.#undecided.set(node, (this.#undecided.get(node) ?? 0) + 1)
      session.begin()
    })
  }

  /** The session is in, or it is over. */
  decided({ node }: Session): void {
    const left = (this.#undecided.get(node) ?? 1) - 1
    if (left > 0) this.#undecided.set(node, left)
    else this.#undecided.delete(node)
  }

  /** The session has said hello, or it has ended before. */
  greeted(session: Session): void {
    this.#strangers.delete(session)
  }

  /** Lets the session in unless another live one has the same identity. */
  async enter(session: Session): Promise<boolean> {
    const other = this.sessions.get(session.node)
    if (other !== undefined) {
      if (await other.isAlive(twinProbe)) {
        this.#options.onTwin(other, session.remote)
        return false
      }
      other.close(1006, 'replaced by a new session')
      await other.channel.closed
    }
    // Meanwhile a third one may have come in, or this one may have gone.
    if (this.sessions.has(session.node) || !session.channel.isOpen) return false
    this.sessions.set(session.node, session)
    return true
  }

  leave(session: Session): void {
    if (this.sessions.get(session.node) === session) this.sessions.delete(session.node)
  }

  /** Ends sessions that are silent; one timer for all of them, because there are thousands. */
  async #sweep(): Promise<void> {
    const { clock, heartbeatSeconds } = this.#options
    const interval = heartbeatSeconds * 1000
    const { signal } = this.#stop
    for (;;) {
      await clock.sleep(Math.min(interval, helloWithin / 4), signal).catch(() => undefined)
      if (signal.aborted) return
      const now = monotonicOf(this.#options)()
      for (const session of this.#strangers) {
        if (now - session.openedAt < helloWithin) break // the rest came later
        session.close(4408, 'no hello came')
      }
      for (const session of this.sessions.values())
        if (session.heardAt < now - 3 * interval) session.close(4408, 'no heartbeat came')
    }
  }
}

function refuse(socket: Duplex, status: string): void {
  socket.on('error', () => undefined) // the refused end may be gone already
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
}

class Session implements CoordinatorSession {
  readonly node: string
  readonly remote: string
  readonly openedAt: number
  readonly channel: Channel<CoordinatorFrame, AgentFrame>
  readonly #options: AcceptOptions
  readonly #acceptor: SessionAcceptor
  readonly #outbox = new Outbox<CoordinatorFrame>(outboxLimit)
  #admitted = false

  constructor(
    socket: WebSocket,
    node: string,
    remote: string,
    options: AcceptOptions,
    acceptor: SessionAcceptor,
  ) {
    this.node = node
    this.remote = remote
    const monotonic = monotonicOf(options)
    this.openedAt = monotonic()
    this.#options = options
    this.#acceptor = acceptor
    this.channel = new Channel(socket, {
      parse,
      monotonic,
      onAck: (numbers) => this.#outbox.acknowledge(numbers),
      onFrame: (frame) => this.#take(frame),
    })
  }

  get heardAt(): number {
    return this.channel.heardAt
  }

  /** Waits for the end. */
  begin(): void {
    void this.channel.closed.then((closed) => {
      this.#acceptor.greeted(this)
      if (!this.#admitted) this.#acceptor.decided(this)
      this.#outbox.fail(sessionClosed())
      this.#acceptor.leave(this)
      if (this.#admitted) this.#options.onClose(this, closed)
    })
  }

  async send(frame: CoordinatorFrame): Promise<void> {
    await this.channel.send(frame)
  }

  async deliver(frame: CoordinatorFrame): Promise<void> {
    if (!this.channel.isOpen) throw sessionClosed()
    await this.#outbox.deliver(frame, (sent, number) => {
      this.channel.send(sent, number).catch(() => undefined) // the end of the session rejects it
    })
  }

  async isAlive(within: number): Promise<boolean> {
    if (!this.channel.isOpen) return false
    const answered = new AbortController()
    const silence = this.#options.clock.sleep(within, answered.signal).then(
      () => false,
      () => true,
    )
    void this.channel.probe().then(() => answered.abort())
    return await Promise.race([silence, this.channel.closed.then(() => false)])
  }

  close(code: CloseCode, text: string): void {
    this.channel.close(code, text)
  }

  async #take(frame: AgentFrame): Promise<void> {
    if (frame.kind === 'hello') return await this.#greet(frame)
    if (!this.#admitted) return this.close(4400, 'a frame before the hello')
    if (frame.kind === 'heartbeat') return await this.send(frame).catch(() => undefined)
    await this.#options.onFrame(this, frame)
  }

  async #greet(hello: Hello): Promise<void> {
    this.#acceptor.greeted(this)
    if (this.#admitted) return this.close(4400, 'a second hello')
    if (hello.node !== this.node) return this.close(4403, 'the hello names another node')
    if (!(await this.#acceptor.enter(this)))
      return this.close(4409, 'another agent with this identity is connected and alive')
    try {
      const welcome = await this.#options.admit(this.node, hello, this.remote)
      await this.send(welcome)
    } catch (error) {
      if (!(error instanceof SessionRefused)) throw error
      return this.close(error.code, error.message)
    }
    // Whoever has gone meanwhile was never there: `onClose` follows `onOpen` and nothing else.
    if (!this.channel.isOpen) return
    this.#admitted = true
    this.#acceptor.decided(this)
    await this.#options.onOpen(this, hello)
  }
}
