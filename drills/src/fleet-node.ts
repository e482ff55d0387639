import { randomUUID } from 'node:crypto'
import { access, mkdir, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  freePort,
  isObject,
  messageOf,
  parseJson,
  type RunningProgram,
  startProgram,
  systemClock,
  writeDurable,
} from '@holdfast/base'
import { drillsFault } from './faults.ts'
import type { Command } from './fleet.ts'
import { endsWithin, ManagedProcess, readyWithin } from './managed-process.ts'

// A node of the local fleet: the real agent in a process of its own, with a directory, a disk that is
// a sparse file, and a directory in memory that does not survive a power cut. A reboot is a file in
// that memory, which the agent's reboot command makes: the machine then goes down and comes back.

export interface NodePlace {
  name: string
  /** Everything that lasts: `node/` is the agent's directory, `disk.img` its disk. */
  home: string
  /** On a tmpfs; lost when the power is cut. */
  memory: string
  /** Runs the agent; `agent/src/main.ts` does. */
  command: Command
  /** Bytes of the disk. Default 32 MiB, sparse. */
  diskSize?: number
}

/** An event that the agent wrote to standard error. */
export interface NodeEvent {
  kind: string
  [member: string]: unknown
}

const defaultDisk = 32 * 1024 * 1024
const eventsKept = 500
/** Milliseconds between two looks for a reboot that was ordered. */
const rebootLook = 200

/** Its process is the agent's: SIGTERM and SIGKILL leave the machine its memory. */
export class FleetNode extends ManagedProcess {
  readonly name: string
  readonly device: string
  readonly directory: string
  readonly memory: string
  readonly peerPort: number
  readonly #place: NodePlace
  readonly #wireguardPort: number
  readonly #events: NodeEvent[] = []
  #node = ''
  #phase: string | undefined
  #rebooting: Promise<void> | undefined
  #disposed = false

  private constructor(place: NodePlace, peerPort: number, wireguardPort: number) {
    super()
    this.name = place.name
    this.device = join(place.home, 'disk.img')
    this.directory = join(place.home, 'node')
    this.memory = place.memory
    this.peerPort = peerPort
    this.#place = place
    this.#wireguardPort = wireguardPort
  }

  /** Makes its directories (0700) and its blank disk, and starts it. */
  static async launch(place: NodePlace): Promise<FleetNode> {
    await mkdir(place.home, { recursive: true, mode: 0o700 })
    const node = new FleetNode(place, await freePort(), await freePort())
    const disk = await open(node.device, 'wx', 0o600)
    try {
      await disk.truncate(place.diskSize ?? defaultDisk)
    } finally {
      await disk.close()
    }
    await node.start()
    return node
  }

  /** The node's id: SHA-256 of its public identity key. */
  get node(): string {
    return this.#node
  }

  /** It has become a new machine, which was enrolled under another id. */
  renewed(node: string): void {
    this.#node = node
  }

  /** What it said since its last start, the oldest first. */
  get events(): readonly NodeEvent[] {
    return this.#events
  }

  /** The phase that it was last heard to be in. */
  get phase(): string | undefined {
    return this.#phase
  }

  protected override async launch(): Promise<RunningProgram> {
    await mkdir(this.memory, { recursive: true, mode: 0o700 })
    // What only a boot makes, and a process that is started again finds.
    if (!(await exists(this.#bootId))) await writeDurable(this.#bootId, `${randomUUID()}\n`)
    this.#events.length = 0
    this.#phase = undefined
    const { program, args } = this.#place.command
    const { running, line } = await startProgram(
      program,
      [...args, ...this.#arguments()],
      (text) => text.includes('"ready"'),
      { onLine: (text) => this.#heard(text), readyWithin, grace: endsWithin },
    )
    const ready = parseJson(line, 'what the agent printed')
    this.#node = isObject(ready) ? (textOf(ready.node) ?? '') : ''
    this.#rebooting = this.#obeyReboot(running)
    return running
  }

  /** Goes down and comes back when the agent has told its machine to. */
  async #obeyReboot(running: RunningProgram): Promise<void> {
    const isUp = () => this.running === running
    do await systemClock.sleep(rebootLook)
    while (isUp() && !(await exists(this.#rebootMark)))
    if (!isUp()) return
    try {
      await this.cutPower()
      if (!this.#disposed) await this.start()
    } catch (error) {
      // A machine that does not come back is one that is off.
      this.#keep({ kind: 'reboot_failed', text: messageOf(error) })
    }
  }

  /** Ends the agent at once and empties what was only in memory. */
  async cutPower(): Promise<void> {
    await this.kill()
    for (const name of await readdir(this.memory)) {
      await rm(join(this.memory, name), { recursive: true, force: true })
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true
    await super[Symbol.asyncDispose]()
    await this.#rebooting
    await rm(this.memory, { recursive: true, force: true })
  }

  /** Where it can be enrolled, and the code on its console. @throws Fault drills.timed_out */
  async console(signal?: AbortSignal): Promise<{ address: string; code: string }> {
    return await this.until(
      'shows its code',
      () => {
        const port = this.#last('enrolment_port')?.port
        const code = textOf(this.#last('code')?.code)
        if (typeof port !== 'number' || code === undefined) return undefined
        return { address: `127.0.0.1:${port}`, code }
      },
      signal,
    )
  }

  /** Waits until something is so. @throws Fault drills.timed_out with the last events */
  async until<T>(what: string, look: () => T | undefined, signal?: AbortSignal): Promise<T> {
    const deadline = performance.now() + 240_000
    while (performance.now() < deadline) {
      signal?.throwIfAborted()
      const found = look()
      if (found !== undefined) return found
      await systemClock.sleep(20)
    }
    const last = this.#events.slice(-5).map((event) => JSON.stringify(event))
    throw drillsFault('drills.timed_out', `${this.name} ${what}: not in time; ${last.join(' ')}`)
  }

  get #bootId(): string {
    return join(this.memory, 'boot-id')
  }

  get #rebootMark(): string {
    return join(this.memory, 'reboot')
  }

  #last(kind: string): NodeEvent | undefined {
    return this.#events.findLast((event) => event.kind === kind)
  }

  #heard(line: string): void {
    const value = line.startsWith('{') ? parseJson(line, 'an event') : { text: line }
    if (!isObject(value)) return
    this.#keep({ ...value, kind: textOf(value.kind) ?? 'said' })
  }

  #keep(event: NodeEvent): void {
    if (event.kind === 'phase') this.#phase = textOf(event.phase)
    this.#events.push(event)
    if (this.#events.length > eventsKept) this.#events.shift()
  }

  #arguments(): string[] {
    return [
      ...['--directory', this.directory, '--runtime', this.memory, '--device', this.device],
      ...['--host', '127.0.0.1', '--enrolment-port', '0'],
      ...['--boot-id', this.#bootId, '--reboot-command', `touch ${this.#rebootMark}`],
      ...['--peer-port', `${this.peerPort}`, '--wireguard-port', `${this.#wireguardPort}`],
      // All of them share this machine's network and its TPM.
      ...['--tunnel', 'off', '--tpm', 'off'],
    ]
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
