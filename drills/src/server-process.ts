import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort, isObject, parseJson, type RunningProgram } from '@holdfast/base'
import { adminClient } from '@holdfast/keyserver'
import { drillsFault } from './faults.ts'
import type { Command, FleetServer } from './fleet.ts'
import { ManagedProcess, startReady } from './managed-process.ts'

export interface ServerPlace {
  name: string
  /** Everything of this server: `keys/` below it is the key directory. */
  home: string
  command: Command
  /** Make keys when there are none. Default true. */
  initialise?: boolean
  /** A fixed port; otherwise a free one is chosen, which it keeps while it is stopped. */
  port?: number
}

/** Unix socket paths are limited to 107 bytes (unix(7)); beyond that the server chooses. */
const longestSocket = 100

/** One key server in a process of its own, started and stopped any number of times. */
export class ServerProcess extends ManagedProcess implements FleetServer {
  readonly name: string
  readonly directory: string
  readonly auditPath: string
  readonly port: number
  readonly #place: ServerPlace
  #socket = ''

  private constructor(place: ServerPlace, port: number) {
    super()
    this.name = place.name
    this.directory = join(place.home, 'keys')
    this.auditPath = join(place.home, 'audit.log')
    this.port = port
    this.#place = place
  }

  /** Makes its folder (mode 0700) and starts it. */
  static async launch(place: ServerPlace): Promise<ServerProcess> {
    await mkdir(place.home, { recursive: true, mode: 0o700 })
    const server = new ServerProcess(place, place.port ?? (await freePort()))
    await server.start()
    return server
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  get socket(): string {
    return this.#socket
  }

  get administration() {
    return adminClient(this.#socket)
  }

  protected override async launch(): Promise<RunningProgram> {
    const { command } = this.#place
    const { running, ready } = await startReady(command, this.#arguments(), readyLine)
    this.#socket = ready.adminSocket
    return running
  }

  /** Thumbprint of the signing key it advertises, read where it cannot be forged: at the server. */
  async thumbprint(): Promise<string> {
    const { keys } = await this.administration.list()
    const signing = keys.find(({ use, state }) => use === 'signing' && state === 'advertised')
    if (signing !== undefined) return signing.kid
    throw drillsFault('drills.check_failed', `${this.name} has no signing key`)
  }

  /** The `tang` pin's configuration for this server. */
  async pin(): Promise<{ url: string; thp: string }> {
    return { url: this.url, thp: await this.thumbprint() }
  }

  #arguments(): string[] {
    const socket = join(this.#place.home, 'admin.sock')
    return [
      ...['--directory', this.directory, '--port', `${this.port}`],
      ...['--audit', this.auditPath, '--log', 'error'],
      ...(Buffer.byteLength(socket) > longestSocket ? [] : ['--admin', socket]),
      ...(this.#place.initialise === false ? [] : ['--init', 'P-521']),
    ]
  }
}

/** Launches servers side by side; all that start are given to `cleanup`, even when one does not. */
export async function launchServers(
  cleanup: AsyncDisposableStack,
  places: readonly ServerPlace[],
  onLaunch: (server: ServerProcess) => void = () => undefined,
): Promise<ServerProcess[]> {
  const launched = await Promise.allSettled(
    places.map(async (place) => {
      const server = await ServerProcess.launch(place)
      onLaunch(server)
      return server
    }),
  )
  const servers = launched.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  for (const server of servers) cleanup.use(server)
  const failed = launched.find((one) => one.status === 'rejected')
  if (failed !== undefined) throw failed.reason
  return servers
}

function readyLine(line: string): { adminSocket: string } | undefined {
  if (!line.startsWith('{')) return undefined
  const value = parseJson(line, 'what the key server printed')
  if (!isObject(value)) return undefined
  const { adminSocket } = value
  return typeof adminSocket === 'string' ? { adminSocket } : undefined
}
