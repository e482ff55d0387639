import type { Agent } from 'node:https'
import { type Clock, isFault, messageOf } from '@holdfast/base'
import {
  type AgentFrame,
  agentPath,
  type CoordinatorFrame,
  coordinatorFrameSchema,
} from '@holdfast/protocol/frames'
import { WebSocket } from 'ws'
import { type Backoff, nextWait } from './backoff.ts'
import { Channel, parserOf, sessionClosed } from './channel.ts'
import type { Closed } from './close-reasons.ts'
import { linkFault } from './faults.ts'
import { Outbox } from './outbox.ts'

// The agent's side of its session with the coordinator. It only ever connects outwards, so it works
// behind address translation. It tries every coordinator it knows before it waits. What must not be
// lost goes through `deliver`: it is kept until a coordinator, any of them, has acknowledged it.

export type Hello = Extract<AgentFrame, { kind: 'hello' }>
export type Welcome = Extract<CoordinatorFrame, { kind: 'welcome' }>
/** What an agent has to act on; the session itself answers the rest. */
export type Instruction = Exclude<CoordinatorFrame, Welcome | { kind: 'heartbeat' }>

export type SessionState =
  | { kind: 'connecting'; url: string }
  | { kind: 'open'; url: string; welcome: Welcome }
  /** Not connected: why, and milliseconds until the next attempt. */
  | { kind: 'waiting'; url: string; cause: Error; wait: number }

export interface SessionOptions {
  /** `https://host:port` of every coordinator instance known. */
  urls: readonly string[]
  /** From `pinnedTls`, with the node's certificate. */
  tls: Agent
  /** Made anew for every connection. */
  hello: () => Hello | Promise<Hello>
  /**
   * Acts on one instruction, or only writes it down: the next one waits for this one. An instruction
   * can come twice.
   */
  onFrame: (frame: Instruction) => Promise<void> | void
  onState?: (state: SessionState) => void
  /** Its sleep is used; the time that passes between frames is `monotonic`'s. */
  clock: Clock
  /** Milliseconds that only ever go forward: a node's clock jumps when it is set. */
  monotonic?: () => number
  /** Numbers in [0, 1). */
  random?: () => number
  signal: AbortSignal
  backoff?: Backoff
  /** Milliseconds until a connection must stand and be welcomed. Default 15 000. */
  timeout?: number
}

export interface AgentSession extends AsyncDisposable {
  readonly state: SessionState
  /** Frames that no coordinator has acknowledged yet. */
  readonly unacknowledged: number
  /** Sends now or not at all. @throws Fault link.session_closed */
  send(frame: AgentFrame): Promise<void>
  /** Keeps the frame over reconnections; resolves when it was taken in. @throws Fault link.outbox_full */
  deliver(frame: AgentFrame): Promise<void>
}

const outboxLimit = 16 * 1024 * 1024
/** A document of a million characters, quoted inside JSON, fits. */
const largestMessage = 4 * 1024 * 1024
const parse = parserOf(coordinatorFrameSchema)

/**
 * Starts the session; it connects and reconnects until disposed or `signal` says stop. Once it is disposed
 * of, no instruction is being acted on any more.
 */
export function connectSession(options: SessionOptions): AgentSession {
  return new Session(options)
}

type Connection = Channel<AgentFrame, CoordinatorFrame>

class Session implements AgentSession {
  state: SessionState
  readonly #options: SessionOptions
  readonly #random: () => number
  readonly #monotonic: () => number
  readonly #outbox = new Outbox<AgentFrame>(outboxLimit)
  readonly #stop = new AbortController()
  readonly #ended: Promise<void>
  /** Frames of connections that have ended and are still being handled. */
  readonly #handling = new Set<Promise<void>>()
  #channel: Connection | undefined
  #turn: number

  constructor(options: SessionOptions) {
    this.#options = options
    this.#random = options.random ?? Math.random
    this.#monotonic = options.monotonic ?? (() => performance.now())
    // Agents begin at different instances, so that these share the load.
    this.#turn = Math.floor(this.#random() * options.urls.length)
    this.state = { kind: 'connecting', url: this.#url() }
    const signal = AbortSignal.any([options.signal, this.#stop.signal])
    this.#ended = this.#live(signal).finally(() => this.#outbox.fail(sessionClosed()))
  }

  get unacknowledged(): number {
    return this.#outbox.size
  }

  async send(frame: AgentFrame): Promise<void> {
    if (this.#channel === undefined) throw sessionClosed()
    await this.#channel.send(frame)
  }

  async deliver(frame: AgentFrame): Promise<void> {
    if (this.#stop.signal.aborted || this.#options.signal.aborted) throw sessionClosed()
    const channel = this.#channel
    await this.#outbox.deliver(frame, channel && sender(channel))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#ended
    await Promise.all(this.#handling)
  }

  #url(): string {
    return this.#options.urls[this.#turn % this.#options.urls.length] ?? ''
  }

  #enter(state: SessionState): void {
    this.state = state
    this.#options.onState?.(state)
  }

  async #live(signal: AbortSignal): Promise<void> {
    const { clock, urls } = this.#options
    const backoff = this.#options.backoff ?? { base: 1_000, most: 60_000 }
    let failures = 0
    let wait = 0
    while (!signal.aborted) {
      const url = this.#url()
      const began = this.#monotonic()
      const cause = await this.#connectOnce(url, signal)
      if (signal.aborted) return
      const lasted = this.#monotonic() - began > backoff.most
      if (lasted) [failures, wait] = [0, 0]
      failures += 1
      this.#turn += 1
      const roundDone = failures % urls.length === 0
      if (roundDone) wait = nextWait(wait, backoff, this.#random)
      this.#enter({ kind: 'waiting', url, cause, wait: roundDone ? wait : 0 })
      if (roundDone) await clock.sleep(wait, signal).catch(() => undefined)
    }
  }

  /** One connection from its beginning to its end; says why it ended. */
  async #connectOnce(url: string, signal: AbortSignal): Promise<Error> {
    this.#enter({ kind: 'connecting', url })
    const over = new AbortController()
    const socket = openSocket(url, this.#options.tls)
    const { channel, welcomed } = this.#converse(socket)
    const stop = () => channel.close(1000, 'the agent stops')
    signal.addEventListener('abort', stop, { once: true, signal: over.signal })
    try {
      const welcome = await this.#greet(socket, channel, welcomed, url)
      this.#channel = channel
      this.#enter({ kind: 'open', url, welcome })
      this.#outbox.resend(sender(channel))
      void this.#beat(channel, welcome.heartbeatSeconds * 1000, over.signal)
      return closedFault(url, await channel.closed)
    } catch (error) {
      channel.close(1001, 'the session could not begin')
      return error instanceof Error ? error : new Error(messageOf(error))
    } finally {
      this.#channel = undefined
      over.abort()
      const handling = channel.handled().finally(() => this.#handling.delete(handling))
      this.#handling.add(handling)
    }
  }

  async #greet(
    socket: WebSocket,
    channel: Connection,
    welcomed: Promise<Welcome>,
    url: string,
  ): Promise<Welcome> {
    const { clock, hello, timeout = 15_000 } = this.#options
    const greeting = async () => {
      await opened(socket, url)
      await channel.send(await hello())
      const closed = channel.closed.then((reason) => Promise.reject(closedFault(url, reason)))
      return await Promise.race([welcomed, closed])
    }
    return await before(greeting(), clock, timeout, () => channel.close(4408, 'no welcome came'))
  }

  #converse(socket: WebSocket): { channel: Connection; welcomed: Promise<Welcome> } {
    const { promise: welcomed, resolve } = Promise.withResolvers<Welcome>()
    const channel: Connection = new Channel(socket, {
      parse,
      monotonic: this.#monotonic,
      onAck: (numbers) => this.#outbox.acknowledge(numbers),
      onFrame: async (frame) => {
        if (frame.kind === 'welcome') resolve(frame)
        else if (frame.kind !== 'heartbeat') await this.#options.onFrame(frame)
      },
    })
    return { channel, welcomed }
  }

  async #beat(channel: Connection, interval: number, over: AbortSignal): Promise<void> {
    const { clock } = this.#options
    for (let sequence = 1; !over.aborted; sequence += 1) {
      await clock.sleep(interval, over).catch(() => undefined)
      if (over.aborted) return
      if (this.#monotonic() - channel.heardAt > 2.5 * interval)
        return channel.close(1006, 'the coordinator was silent')
      await channel.send({ kind: 'heartbeat', sequence }).catch(() => undefined)
    }
  }
}

function sender(channel: Connection): (frame: AgentFrame, number: number) => void {
  return (frame, number) => void channel.send(frame, number).catch(() => undefined) // it stays in the outbox
}

function openSocket(url: string, tls: Agent): WebSocket {
  const target = `${url.replace(/^https:/, 'wss:').replace(/\/$/, '')}${agentPath}`
  return new WebSocket(target, {
    agent: tls,
    perMessageDeflate: false,
    maxPayload: largestMessage,
    skipUTF8Validation: false,
  })
}

function opened(socket: WebSocket, url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('open', resolve)
    socket.once('error', (cause) => {
      if (isFault(cause)) return reject(cause)
      const text = `${url} does not take the session: ${cause.message}`
      reject(linkFault('link.unreachable', text, { cause }))
    })
  })
}

function closedFault(url: string, { code, reason, text }: Closed): Error {
  const words = text === '' ? reason : `${reason}, ${text}`
  return linkFault('link.session_closed', `the session with ${url} has ended: ${words}`, {
    details: { code, reason },
  })
}

/** Calls `act` once when `work` has not settled after `milliseconds`. */
async function before<T>(
  work: Promise<T>,
  clock: Clock,
  milliseconds: number,
  act: () => void,
): Promise<T> {
  const settled = new AbortController()
  clock.sleep(milliseconds, settled.signal).then(act, () => undefined)
  try {
    return await work
  } finally {
    settled.abort()
  }
}
