import { setTimeout as sleep } from 'node:timers/promises'
import { exchangeOnce, KeptConnection } from './client.ts'
import type { LoadPlan, LoadReport, RoundFigures, Target } from './load-plan.ts'
import { processorTime } from './process-cpu.ts'
import { median, quantile } from './statistics.ts'

/** Bytes of the next request sent ahead: `POST /rec/`. */
const firstLine = 10
/** Milliseconds before a client whose connection failed tries again. */
const retryPause = 10

/** Measures every target once per round, in turn, so that a slow moment of the machine hits all. */
export async function runLoad(plan: LoadPlan): Promise<LoadReport> {
  const requests = plan.requests.map((text) => Buffer.from(text, 'latin1'))
  const report = Object.fromEntries(plan.targets.map(({ name }) => [name, [] as RoundFigures[]]))
  for (let round = 0; round < plan.rounds; round += 1) {
    for (const target of plan.targets) {
      report[target.name]?.push(await measure(plan, requests, target))
    }
  }
  return report
}

async function measure(plan: LoadPlan, requests: Buffer[], target: Target): Promise<RoundFigures> {
  const idle = processorTime(target.pid).processes
  const load = new ClosedLoop(target.port, requests, plan.concurrency, plan.mode)
  load.start()
  await sleep(plan.warmUpSeconds * 1000)
  load.reset()
  const before = processorTime(target.pid)
  const client = process.cpuUsage()
  const start = performance.now()
  await sleep(plan.seconds * 1000)
  const counted = load.counts
  const elapsed = (performance.now() - start) / 1000
  await load.stop()
  const clientCpu = process.cpuUsage(client)
  await settled(target.pid, idle)
  const micros = processorTime(target.pid).micros - before.micros
  const all = load.counts
  return {
    requestsPerSecond: counted.replies / elapsed,
    cpuMicrosPerRequest: micros / all.replies,
    p50: median(all.latencies),
    p99: quantile(all.latencies, 0.99),
    requests: all.replies,
    failures: all.failures,
    clientCpuMicrosPerRequest: (clientCpu.user + clientCpu.system) / all.replies,
  }
}

/** Waits until the processes of closed connections have ended and been counted by their parent. */
export async function settled(pid: number, idle: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    if (processorTime(pid).processes <= idle) break
    await sleep(20)
  }
  await sleep(20)
}

interface Counts {
  replies: number
  failures: number
  /** Milliseconds from before the connection, or from sending on a kept one, to the whole reply. */
  latencies: number[]
}

const nothing = (): Counts => ({ replies: 0, failures: 0, latencies: [] })

/** A fixed number of clients, each of which asks again as soon as it has its answer. */
class ClosedLoop {
  readonly #port: number
  readonly #requests: readonly Buffer[]
  readonly #clients: number
  readonly #mode: LoadPlan['mode']
  #counts = nothing()
  #next = 0
  #stopping = false
  #running = 0
  #stopped = Promise.withResolvers<void>()

  constructor(port: number, requests: readonly Buffer[], clients: number, mode: LoadPlan['mode']) {
    this.#port = port
    this.#requests = requests
    this.#clients = clients
    this.#mode = mode
  }

  get counts(): Counts {
    return { ...this.#counts, latencies: [...this.#counts.latencies] }
  }

  start(): void {
    for (let client = 0; client < this.#clients; client += 1) {
      this.#running += 1
      if (this.#mode === 'new-connection') this.#once()
      else this.#keep()
    }
  }

  reset(): void {
    this.#counts = nothing()
  }

  /** No further requests; resolves when the last reply has come. */
  stop(): Promise<void> {
    this.#stopping = true
    if (this.#running === 0) this.#stopped.resolve()
    return this.#stopped.promise
  }

  #request(): Buffer {
    this.#next = (this.#next + 1) % this.#requests.length
    return this.#requests[this.#next] ?? Buffer.alloc(0)
  }

  #note(status: number, since: number): void {
    if (status === 200) {
      this.#counts.replies += 1
      this.#counts.latencies.push(performance.now() - since)
    } else this.#counts.failures += 1
  }

  #clientEnded(): void {
    this.#running -= 1
    if (this.#running === 0) this.#stopped.resolve()
  }

  #once(): void {
    const since = performance.now()
    exchangeOnce(this.#port, this.#request(), (status) => {
      this.#note(status, since)
      if (this.#stopping) this.#clientEnded()
      else if (status === 0) setTimeout(() => this.#once(), retryPause)
      else this.#once()
    })
  }

  #keep(): void {
    let request = this.#request()
    let begun = 0
    let since = performance.now()
    const onReply = (status: number) => {
      this.#note(status, since)
      if (status === 0) return this.#again()
      if (this.#stopping) {
        connection.close()
        return this.#clientEnded()
      }
      since = performance.now()
      if (begun === 0) request = this.#request()
      connection.write(request.subarray(begun))
      begun = 0
    }
    const onPart = () => {
      if (this.#mode !== 'keep-alive-quick-ack' || this.#stopping || begun > 0) return
      request = this.#request()
      begun = firstLine
      connection.write(request.subarray(0, begun))
    }
    const connection = new KeptConnection(this.#port, onReply, onPart)
    connection.write(request)
  }

  #again(): void {
    if (this.#stopping) this.#clientEnded()
    else setTimeout(() => this.#keep(), retryPause)
  }
}
