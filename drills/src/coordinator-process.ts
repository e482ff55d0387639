import { join } from 'node:path'
import { ensureDirectory, freePort, isObject, parseJson, type RunningProgram } from '@holdfast/base'
import { ApiClient, type ApiPlace } from '@holdfast/link/api-client'
import { statusRoutes } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Command } from './fleet.ts'
import { ManagedProcess, startReady } from './managed-process.ts'

export type CoordinatorStatus = z.output<typeof statusRoutes.status.output>

export interface CoordinatorPlace {
  /** The instance's own name. */
  name: string
  /** Its directory; made when absent (mode 0700). */
  directory: string
  /** Runs `holdfast coordinator serve --json` or the coordinator's own main file. */
  command: Command
  /** A file with the addresses of PostgreSQL; default SQLite in the directory. */
  store?: string
  /** A fixed port; otherwise a free one is chosen, which it keeps while it is stopped. */
  port?: number
  /** `error` by default. */
  log?: string
}

/** One coordinator in a process of its own, started and stopped any number of times. */
export class CoordinatorProcess extends ManagedProcess {
  readonly name: string
  readonly directory: string
  readonly #place: CoordinatorPlace
  readonly #port: number
  #identity = ''

  private constructor(place: CoordinatorPlace, port: number) {
    super()
    this.name = place.name
    this.directory = place.directory
    this.#place = place
    this.#port = port
  }

  static async launch(place: CoordinatorPlace): Promise<CoordinatorProcess> {
    await ensureDirectory(place.directory)
    const coordinator = new CoordinatorProcess(place, place.port ?? (await freePort()))
    await coordinator.start()
    return coordinator
  }

  /** The same after a restart. */
  get url(): string {
    return `https://127.0.0.1:${this.#port}`
  }

  /** What clients pin, as it showed at its last start. */
  get identity(): string {
    return this.#identity
  }

  protected override async launch(): Promise<RunningProgram> {
    const { command } = this.#place
    const { running, ready } = await startReady(command, this.#arguments(), readyLine)
    this.#identity = ready.identity
    return running
  }

  /** A client that accepts this identity only; the caller disposes of it. */
  client(options: Omit<Partial<ApiPlace>, 'url'> = {}): ApiClient {
    return new ApiClient({ url: this.url, identity: this.#identity, ...options })
  }

  async status(): Promise<CoordinatorStatus> {
    using client = this.client()
    return await client.call(statusRoutes.status)
  }

  /** Where the one-time token of a coordinator that nobody owns lies. */
  get claimToken(): string {
    return join(this.directory, 'claim-token')
  }

  #arguments(): string[] {
    const { name, directory, store = 'sqlite', log = 'error' } = this.#place
    return [
      ...['--directory', directory, '--port', `${this.#port}`, '--instance', name],
      ...['--store', store, '--log', log],
    ]
  }
}

function readyLine(line: string): { identity: string } | undefined {
  if (!line.startsWith('{')) return undefined
  const value = parseJson(line, 'what the coordinator printed')
  if (!isObject(value)) return undefined
  const { identity } = value
  return typeof identity === 'string' ? { identity } : undefined
}
