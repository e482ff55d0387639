import { createServer, type Server, type Socket } from 'node:net'
import { Connection, type ConnectionHost } from './connection.ts'
import { type Limits, networkOf, RateLimiter } from './limits.ts'
import { recover } from './recovery.ts'
import type { Request } from './request.ts'
import type { Snapshot } from './snapshot.ts'
import { busyReply, emptyReply, type Route, route, textReply } from './wire.ts'

// The HTTP side of one server process. Recoveries are the only work that takes time; they wait in one
// queue that is worked off a few milliseconds at a time, so that new connections are accepted and
// finished replies leave in between. A full queue is answered 503 at once.

/** One recovery, as the audit log has it. */
export interface RecoveryEvent {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly source: string
  readonly prefix: string
  /** Thumbprint (SHA-256) of the key used, otherwise what was asked for. */
  readonly kid: string
  readonly known: boolean
  readonly crv: string
  readonly status: number
  readonly microseconds: number
}

export interface ListenerDeps {
  readonly limits: Limits
  /** The picture to answer from, at this moment. */
  snapshot(): Snapshot
  onRecovery(event: RecoveryEvent): void
  /** The body of GET /healthz, and whether all is well. */
  health(): { ok: boolean; body: string }
  /** The body of GET /metrics. */
  metrics(): Promise<string>
  /** Called for a defect that made a request fail with 500. */
  onError(error: unknown): void
}

interface Job {
  route: Extract<Route, { kind: 'recovery' }>
  body: Uint8Array
  connection: Connection
  since: number
}

const sliceTime = 4
const sweepInterval = 500
const pruneInterval = 60_000

export class Listener implements AsyncDisposable, ConnectionHost {
  readonly server: Server
  readonly requestTime: number
  readonly idleTime: number
  /** Counters since the start. */
  readonly counts = { accepted: 0, refused: 0, limited: 0, overloaded: 0 }
  readonly #deps: ListenerDeps
  readonly #connections = new Set<Connection>()
  /** Open connections by address. */
  readonly #open = new Map<string, number>()
  readonly #limiter: RateLimiter
  readonly #timers: NodeJS.Timeout[]
  #queue: Job[] = []
  #scheduled = false
  #stopping = false
  #swept = performance.now()

  constructor(deps: ListenerDeps) {
    this.#deps = deps
    this.requestTime = deps.limits.requestTime
    this.idleTime = deps.limits.idleTime
    this.#limiter = new RateLimiter(deps.limits.rate, deps.limits.burst)
    this.server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.#connected(socket),
    )
    this.#timers = [
      setInterval(() => this.#sweep(), sweepInterval).unref(),
      setInterval(() => this.#limiter.prune(this.now()), pruneInterval).unref(),
    ]
  }

  get connections(): number {
    return this.#connections.size
  }

  now(): number {
    return performance.now()
  }

  /** Stops accepting, lets the answers that are owed leave, then ends every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true
    const closed = new Promise((resolve) => this.server.close(resolve))
    for (const connection of this.#connections) connection.retire()
    const timer = setTimeout(() => {
      for (const connection of this.#connections) connection.destroy()
    }, 3_000)
    await closed
    clearTimeout(timer)
    for (const interval of this.#timers) clearInterval(interval)
  }

  closed(connection: Connection): void {
    if (this.#connections.delete(connection)) this.#count(connection, -1)
  }

  handle(request: Request, connection: Connection): void {
    const where = route(request.method, request.target)
    if (where.kind !== 'health' && !this.#limiter.take(connection.address, this.now())) {
      this.counts.limited += 1
      connection.reply(busyReply(this.#deps.limits.retryAfter))
    } else if (where.kind === 'recovery') {
      this.#enqueue({ route: where, body: request.body, connection, since: this.now() })
    } else if (where.kind === 'advertisement') {
      this.#advertise(where, connection)
    } else if (where.kind === 'health') {
      const { ok, body } = this.#deps.health()
      connection.reply(textReply(ok ? 200 : 503, 'application/json', body))
    } else if (where.kind === 'metrics') {
      this.#later(connection, async () =>
        textReply(200, 'text/plain; version=0.0.4; charset=utf-8', await this.#deps.metrics()),
      )
    } else {
      const allow = where.allow === undefined ? '' : `Allow: ${where.allow}\r\n`
      connection.reply(emptyReply(where.status, allow))
    }
  }

  #connected(socket: Socket): void {
    this.counts.accepted += 1
    const connection = new Connection(socket, this)
    this.#connections.add(connection)
    const { connections, connectionsPerAddress, retryAfter } = this.#deps.limits
    const full = this.#connections.size > connections
    if (this.#count(connection, 1) > connectionsPerAddress || full || this.#stopping) {
      this.counts.refused += 1
      connection.close(busyReply(retryAfter))
    }
  }

  /** Keeps the number of its address's connections, and says it. */
  #count(connection: Connection, change: 1 | -1): number {
    const name = networkOf(connection.address)
    const open = (this.#open.get(name) ?? 0) + change
    if (open > 0) this.#open.set(name, open)
    else this.#open.delete(name)
    return open
  }

  #advertise({ space, thumbprint }: Extract<Route, { kind: 'advertisement' }>, to: Connection) {
    const advertisement = this.#deps.snapshot().spaces.get(space)?.advertisement(thumbprint)
    if (advertisement === undefined) to.reply(emptyReply(404))
    else this.#later(to, () => advertisement)
  }

  #later(connection: Connection, answer: () => Promise<string>): void {
    answer().then(
      (text) => connection.reply(text),
      (error: unknown) => {
        this.#deps.onError(error)
        connection.reply(emptyReply(500))
      },
    )
  }

  #enqueue(job: Job): void {
    const { limits } = this.#deps
    if (this.#deps.snapshot().hold || this.#queue.length >= limits.queue) {
      this.counts.overloaded += 1
      job.connection.reply(busyReply(limits.retryAfter))
      this.#report(job, { status: 503 })
      return
    }
    this.#queue.push(job)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.#work())
  }

  /** Works for a few milliseconds, in order of arrival; requests whose client has left are skipped. */
  #work(): void {
    const until = this.now() + sliceTime
    let done = 0
    for (const job of this.#queue) {
      done += 1
      if (job.connection.alive) this.#recover(job)
      if (this.now() >= until) break
    }
    this.#queue = this.#queue.slice(done)
    this.#scheduled = this.#queue.length > 0
    if (this.#scheduled) setImmediate(() => this.#work())
  }

  #recover(job: Job): void {
    const { space, thumbprint } = job.route
    try {
      const result = recover(this.#deps.snapshot(), space, thumbprint, job.body)
      job.connection.reply(result.reply)
      this.#report(job, result)
    } catch (error) {
      this.#deps.onError(error)
      job.connection.reply(emptyReply(500))
      this.#report(job, { status: 500 })
    }
  }

  #report(job: Job, result: { status: number; kid?: string; crv?: string }): void {
    this.#deps.onRecovery({
      at: Date.now(),
      source: job.connection.address,
      prefix: job.route.space,
      kid: result.kid ?? job.route.thumbprint.slice(0, 88),
      known: result.kid !== undefined,
      crv: result.crv ?? '',
      status: result.status,
      microseconds: Math.round((this.now() - job.since) * 1000),
    })
  }

  /** Time in which this process stood still is nobody's: it has not read what arrived meanwhile. */
  #sweep(): void {
    const now = this.now()
    const late = now - this.#swept - sweepInterval
    this.#swept = now
    const stood = late > sweepInterval ? late : 0
    for (const connection of this.#connections) connection.sweep(now, stood)
  }
}
