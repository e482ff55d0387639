import cluster, { type Worker } from 'node:cluster'
import { type Clock, freePort, isFault, systemClock } from '@holdfast/base'
import type { Log } from '@holdfast/base/log'
import type { Health } from './engine.ts'
import type { Gauges } from './events.ts'
import { keyserverFault } from './faults.ts'
import type { Front, FrontDeps, FrontSettings } from './front.ts'
import { type FromWorker, type ToWorker, unpackFault } from './messages.ts'

// Several server processes on one port. They share one listening socket and accept from it
// themselves (cluster without round robin): a connection waiting in the kernel's queue belongs to no
// process yet, so a killed worker loses only what it was answering, and a worker busy with a
// multiplication leaves new connections to the others. (With SO_REUSEPORT every process has a queue
// of its own, and a killed process takes that with it.)

/** How a worker process is started: a program that ends up in `runWorker`, and its arguments. */
export interface WorkerProgram {
  readonly program: string
  readonly args: readonly string[]
}

interface Member {
  worker: Worker
  ready: boolean
  gauges: Gauges
  health: Health | undefined
  awaited: Map<number, (fault: Error | undefined) => void>
}

/** What every worker is to do, in a word for it and in words for people. */
interface Request {
  readonly kind: 'reload' | 'collect'
  readonly what: string
}

const noGauges: Gauges = { connections: 0, accepted: 0, refused: 0, limited: 0, overloaded: 0 }
const answerTimeout = 30_000
const stopTimeout = 5_000

/**
 * Starts `count` worker processes and keeps that many running.
 * @throws Fault of the first worker that cannot start
 */
export async function startPool(
  count: number,
  program: WorkerProgram,
  settings: FrontSettings,
  deps: FrontDeps,
): Promise<Front> {
  if (Object.keys(cluster.workers ?? {}).length > 0) {
    throw keyserverFault(
      'keyserver.worker_failed',
      'this process already runs a key server with workers',
      { hint: 'give each key server a process of its own, or no workers' },
    )
  }
  cluster.schedulingPolicy = cluster.SCHED_NONE
  cluster.setupPrimary({ exec: program.program, args: [...program.args] })
  for (let attempt = 0; ; attempt += 1) {
    // The workers must agree on one, also after all of them were replaced.
    const port = settings.port === 0 ? await freePort(settings.host) : settings.port
    const pool = new Pool(count, { ...settings, port }, deps)
    try {
      await pool.start()
      return pool
    } catch (error) {
      await pool[Symbol.asyncDispose]()
      const taken = settings.port === 0 && isFault(error, 'keyserver.listen_failed')
      if (!taken || attempt === 5) throw error
    }
  }
}

class Pool implements Front {
  readonly port: number
  readonly #count: number
  readonly #settings: FrontSettings
  readonly #deps: FrontDeps
  readonly #log: Log
  readonly #clock: Clock = systemClock
  readonly #members = new Set<Member>()
  readonly #stopping = new AbortController()
  #past: Gauges = noGauges
  #restarts = 0
  #failures = 0
  #asked = 0

  constructor(count: number, settings: FrontSettings, deps: FrontDeps) {
    this.#count = count
    this.#settings = settings
    this.#deps = deps
    this.#log = deps.log
    this.port = settings.port
  }

  get workers(): number {
    return [...this.#members].filter((member) => member.ready).length
  }

  get restarts(): number {
    return this.#restarts
  }

  async start(): Promise<void> {
    await Promise.all(Array.from({ length: this.#count }, () => this.#fork()))
  }

  gauges(): Gauges {
    const sum = { ...this.#past, connections: 0 }
    for (const { gauges } of this.#members) addGauges(sum, gauges)
    return sum
  }

  /** The worst of the workers' states. */
  health(): Health {
    const known = [...this.#members].flatMap(({ health }) => health ?? [])
    const worst = (['failed', 'degraded', 'ok'] as const)
      .map((status) => known.find((health) => health.status === status))
      .find((health) => health !== undefined)
    if (worst !== undefined) return worst
    const nothing = { fingerprint: '', advertised: 0, hidden: 0, prefixes: 0, hold: false }
    return { status: 'failed', reasons: ['no server process is running'], ...nothing }
  }

  reload(): Promise<void> {
    return this.#ask({ kind: 'reload', what: 'read the key directory again' })
  }

  collect(): Promise<void> {
    return this.#ask({ kind: 'collect', what: 'say which keys it has used' })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    const ends = [...this.#members].map(
      ({ worker }) =>
        new Promise<void>((resolve) => {
          if (worker.isDead()) return resolve()
          const timer = setTimeout(() => worker.process.kill('SIGKILL'), stopTimeout)
          worker.once('exit', () => {
            clearTimeout(timer)
            resolve()
          })
          send(worker, { kind: 'stop' })
        }),
    )
    await Promise.all(ends)
  }

  /** Forks one worker and waits until it listens. */
  #fork(): Promise<void> {
    const worker = cluster.fork()
    const member: Member = {
      worker,
      ready: false,
      gauges: noGauges,
      health: undefined,
      awaited: new Map(),
    }
    this.#members.add(member)
    worker.on('error', () => undefined) // a message to a worker that just died; `exit` follows
    return new Promise((resolve, reject) => {
      worker.on('message', (message: FromWorker) => {
        if (message.kind === 'ready') resolve()
        if (message.kind === 'failed') reject(unpackFault(message.fault))
        this.#received(member, message)
      })
      worker.once('exit', (code, signal) => {
        reject(
          keyserverFault(
            'keyserver.worker_failed',
            `a server process ended before it listened: ${signal ?? `exit code ${code}`}`,
          ),
        )
        this.#exited(member, signal ?? `exit code ${code}`)
      })
      send(worker, { kind: 'start', settings: this.#settings, logLevel: this.#log.level })
    })
  }

  #received(member: Member, message: FromWorker): void {
    if (message.kind === 'events') {
      this.#deps.onEvents(message.events)
    } else if (message.kind === 'ready') {
      member.ready = true
      member.health = message.health
    } else if (message.kind === 'beat') {
      member.gauges = message.gauges
      member.health = message.health
      this.#failures = 0
    } else if (message.kind === 'done') {
      member.awaited.get(message.id)?.(message.fault && unpackFault(message.fault))
    } else if (message.kind === 'metrics') {
      const { id } = message
      const answer = (text: string) => send(member.worker, { kind: 'metrics', id, text })
      this.#deps.metrics().then(answer, () => answer(''))
    }
  }

  #exited(member: Member, reason: string): void {
    this.#members.delete(member)
    const past = { ...this.#past }
    addGauges(past, { ...member.gauges, connections: 0 })
    this.#past = past
    for (const answer of member.awaited.values()) answer(undefined) // its successor reads afresh
    if (this.#stopping.signal.aborted || !member.ready) return
    this.#log.warn({ pid: member.worker.process.pid, reason }, 'a server process ended')
    void this.#replace()
  }

  /** Starts a successor at once; after repeated failures with growing pauses, for ever. */
  async #replace(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      this.#restarts += 1
      try {
        await this.#fork()
        return
      } catch (error) {
        this.#failures += 1
        this.#log.error({ error: String(error) }, 'a server process could not be replaced')
        const pause = Math.min(30_000, 200 * 2 ** Math.min(this.#failures, 8))
        await this.#clock.sleep(pause, signal).catch(() => undefined)
      }
    }
  }

  /** Has every worker do one thing; fails with the first that refuses, or does not do it in time. */
  async #ask(request: Request): Promise<void> {
    this.#asked += 1
    const id = this.#asked
    const answers = [...this.#members].map((member) => this.#askOne(member, id, request))
    const fault = (await Promise.all(answers)).find((answer) => answer !== undefined)
    if (fault !== undefined) throw fault
  }

  #askOne(member: Member, id: number, request: Request): Promise<Error | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        const text = `a server process did not ${request.what} in time`
        settle(keyserverFault('keyserver.worker_failed', text))
        // It hangs; nor must it go on answering from old keys. Its successor reads afresh.
        member.worker.process.kill('SIGKILL')
      }, answerTimeout)
      const settle = (fault: Error | undefined) => {
        clearTimeout(timer)
        member.awaited.delete(id)
        resolve(fault)
      }
      member.awaited.set(id, settle)
      send(member.worker, { kind: request.kind, id })
    })
  }
}

function addGauges(sum: Gauges, gauges: Gauges): void {
  sum.connections += gauges.connections
  sum.accepted += gauges.accepted
  sum.refused += gauges.refused
  sum.limited += gauges.limited
  sum.overloaded += gauges.overloaded
}

function send(worker: Worker, message: ToWorker): void {
  if (worker.isConnected()) worker.send(message, () => undefined)
}
