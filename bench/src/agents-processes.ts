import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseJsonObject, startProgram } from '@holdfast/base'
import type { AgentsAnswer, AgentsOrder } from './agents-plan.ts'
import type { Figures } from './statistics.ts'

// The two processes of the fleet's benches: a coordinator as it is installed, and one that holds all
// the agents.

export interface CoordinatorProcess extends AsyncDisposable {
  readonly pid: number
  readonly port: number
  readonly url: string
  /** Milliseconds from the start of the process until it listened. */
  readonly startedWithin: number
  /** Ends it as a power cut does. */
  kill(): Promise<void>
}

/** Starts a coordinator on its directory; a port that was used before can be given again. */
export async function startCoordinator(directory: string, port = 0): Promise<CoordinatorProcess> {
  const main = fileURLToPath(new URL('main.ts', import.meta.resolve('@holdfast/coordinator')))
  const options = { directory, port, instance: 'bench', rate: 1_000_000, log: 'warn' }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
  const began = performance.now()
  const { running, line } = await startProgram(
    process.execPath,
    [main, ...args],
    (text) => text.includes('"ready":true'),
    { onLine: (text) => process.stderr.write(`${text}\n`), readyWithin: 60_000 },
  )
  const ready = parseJsonObject(line, 'the first line')
  if (ready.state !== 'running') throw new Error(`the coordinator is ${String(ready.state)}`)
  return {
    pid: running.pid,
    port: Number(ready.port),
    url: `https://127.0.0.1:${ready.port}`,
    startedWithin: performance.now() - began,
    kill: async () => {
      running.kill('SIGKILL')
      await running.ended
    },
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}

/** The process of agents; one order at a time. */
export class AgentsProcess implements AsyncDisposable {
  readonly #child: ChildProcess

  /** `cluster` is what guardians sign their keys for. */
  constructor(cluster: string) {
    const path = fileURLToPath(new URL('agents-main.ts', import.meta.url))
    this.#child = fork(path, [cluster])
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async order(order: AgentsOrder): Promise<Figures> {
    this.#child.send(order)
    const [answer] = await Promise.race([once(this.#child, 'message'), this.#lost()])
    const { figures, failure } = answer as AgentsAnswer // agents-main.ts sends nothing else
    if (failure !== undefined) throw new Error(`the agents' process failed: ${failure}`)
    return figures
  }

  async #lost(): Promise<never> {
    const [code, signal] = await once(this.#child, 'exit')
    throw new Error(`the agents' process has ended: ${signal ?? code}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.disconnect()
    await once(this.#child, 'exit')
  }
}

/** Resident memory of a process in bytes (proc(5), VmRSS). */
export function residentMemory(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) * 1024
}
