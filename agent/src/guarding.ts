import { join } from 'node:path'
import { type Clock, type Fault, isFault, messageOf } from '@holdfast/base'
import { type Backoff, nextWait } from '@holdfast/link'
import { agentFault } from './faults.ts'
import { Guardian, type GuardianDeps } from './guardian.ts'
import {
  type GuardianServer,
  type GuardianServerOptions,
  openGuardianServer,
} from './guardian-server.ts'
import type { ReleaseEvent } from './release-entries.ts'
import { ReleaseLog, releaseLogName } from './release-log.ts'

// A node's guarding of others, which must never stand in the way of its own vault: whatever it needs
// and does not get - its log, its keys, its port - is told as an incident and tried again, and the
// rest of the node goes on. The port is opened even without the log, because a locked node is looked
// at and given its key there.

export interface GuardingDeps {
  directory: string
  /** All but the log. */
  guardian: Omit<GuardianDeps, 'log' | 'history'>
  server: Omit<GuardianServerOptions, 'guardian' | 'onError'>
  /** Where the peer endpoint is, as soon as it is there. */
  onPort: (port: number) => void
  clock: Clock
  /** Default: from a second to a minute. */
  backoff?: Backoff
  signal: AbortSignal
}

/** Unexpected errors that are announced within an hour; a stranger can ask as often as he likes. */
const errorsPerHour = 20

export class Guarding implements AsyncDisposable {
  readonly #deps: GuardingDeps
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  readonly #trying: Promise<void>[] = []
  #errors: number[] = []
  /** What was said of retired keys that are still there; once, however often it is tried. */
  #kept = ''
  #log: ReleaseLog | undefined
  #guardian: Guardian | undefined
  #server: GuardianServer | undefined

  private constructor(deps: GuardingDeps) {
    this.#deps = deps
    this.#signal = AbortSignal.any([deps.signal, this.#stop.signal])
  }

  /** Resolves after the first try of everything; never rejects. */
  static async start(deps: GuardingDeps): Promise<Guarding> {
    const guarding = new Guarding(deps)
    await guarding.#persevere(() => guarding.#openLog(), stopped)
    await guarding.#persevere(
      () => guarding.#openPort(),
      (cause) => closed(deps.server.port, cause),
    )
    return guarding
  }

  /** Writes down what was done for a ward. @throws Fault agent.guardian_stopped while it cannot be */
  async note(event: ReleaseEvent): Promise<void> {
    if (this.#log === undefined) throw stopped()
    await this.#log.append(event)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await Promise.all(this.#trying)
    await this.#server?.[Symbol.asyncDispose]()
  }

  /** Tries at once, and if that fails again and again in the background. */
  async #persevere(
    attempt: () => Promise<void>,
    faultOf: (cause: unknown) => Fault,
  ): Promise<void> {
    const { guardian, clock, backoff = { base: 1_000, most: 60_000 } } = this.#deps
    let told = ''
    const succeeds = async () => {
      try {
        await attempt()
        return true
      } catch (cause) {
        const { code, message } = faultOf(cause)
        if (message !== told) guardian.onIncident(code, message)
        told = message
        return false
      }
    }
    const repeat = async () => {
      for (let wait = 0; !this.#signal.aborted; ) {
        wait = nextWait(wait, backoff, Math.random)
        await clock.sleep(wait, this.#signal).catch(() => undefined)
        if (this.#signal.aborted || (await succeeds())) return
      }
    }
    if (!(await succeeds())) this.#trying.push(repeat())
  }

  async #openLog(): Promise<void> {
    const { directory, guardian, clock } = this.#deps
    await guardian.keys.open()
    await this.#finishRetiring()
    await guardian.keys.sealPlain()
    const path = join(directory, releaseLogName)
    const { log, entries } = await ReleaseLog.open(path, () => clock.now(), {
      onDamage: ({ code, message }) => guardian.onIncident(code, message),
    })
    this.#log = log
    this.#guardian = new Guardian({ ...guardian, log, history: entries })
  }

  /** A retired key that cannot be destroyed is told, and no more: its mark keeps it from being used. */
  async #finishRetiring(): Promise<void> {
    const { keys, onIncident } = this.#deps.guardian
    try {
      await keys.finishRetiring()
    } catch (cause) {
      const text = `retired keys of wards could not be destroyed; they are not used, and the next start tries again: ${messageOf(cause)}`
      if (text !== this.#kept)
        onIncident(isFault(cause) ? cause.code : 'base.file_unreadable', text)
      this.#kept = text
    }
  }

  async #openPort(): Promise<void> {
    this.#server = await openGuardianServer({
      ...this.#deps.server,
      guardian: () => {
        if (this.#guardian === undefined) throw stopped()
        return this.#guardian
      },
      onError: (error) => this.#unexpected(error),
    })
    this.#deps.onPort(this.#server.port)
  }

  #unexpected(error: unknown): void {
    const { monotonic, onIncident } = this.#deps.guardian
    const now = monotonic()
    this.#errors = this.#errors.filter((at) => now - at < 3_600_000)
    if (this.#errors.length >= errorsPerHour) return
    this.#errors.push(now)
    const text = `a request at the peer port could not be answered: ${messageOf(error)}`
    onIncident('agent.guardian_failed', text)
  }
}

function stopped(cause?: unknown) {
  const why = cause === undefined ? '' : `: ${messageOf(cause)}`
  return agentFault('agent.guardian_stopped', `this node guards nobody for now${why}`, { cause })
}

function closed(port: number, cause: unknown) {
  const text = `the peer port ${port} cannot be opened and is tried again: ${messageOf(cause)}`
  return agentFault('agent.peer_port_closed', text, { cause })
}
