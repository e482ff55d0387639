import { type Clock, ensureDirectory, messageOf, systemClock } from '@holdfast/base'
import type { SessionState } from '@holdfast/link'
import type { NodeReport } from '@holdfast/protocol/frames'
import { createPins, type Pins } from '@holdfast/seal'
import { handlersOf } from './command-table.ts'
import { Commands } from './commands.ts'
import { serveEnrolment } from './enrolment.ts'
import type { LifeEffect, LifeEvent } from './life.ts'
import { LifeRunner } from './life-runner.ts'
import type { LifeState } from './life-state.ts'
import { Membership, wardIdentityOf } from './membership.ts'
import { type NodeDirectory, openNodeDirectory } from './node-directory.ts'
import { NodeVault } from './node-vault.ts'
import { peerPin } from './peer-pin.ts'
import { reportOf } from './report.ts'
import { probeGuardians } from './share-health.ts'
import { temporaryPin } from './temporary-pin.ts'

/** What an agent is started with. */
export interface AgentOptions {
  /** Where keys and boot state are, outside of the vault. */
  directory: string
  /** On a tmpfs. */
  runtimeDirectory: string
  /** The disk that becomes, or is, the vault. */
  device: string
  host?: string
  enrolmentPort: number
  peerPort: number
  wireguardPort: number
  onEvent?: (event: AgentEvent) => void
  clock?: Clock
  backoff?: { base: number; most: number }
}

/** What an agent tells whoever runs it; the code is for the console and nobody else. */
export type AgentEvent =
  | { kind: 'code'; code: string }
  | { kind: 'enrolment_port'; port: number }
  | { kind: 'peer_port'; port: number }
  | { kind: 'repaired'; copies: readonly string[] }
  | { kind: 'phase'; phase: LifeState['phase']; task?: string; step?: string }
  | { kind: 'session'; state: SessionState['kind'] }
  | { kind: 'incident'; code: string; text: string }
  | { kind: 'waiting'; text: string }

export interface Agent extends AsyncDisposable {
  readonly node: string
  readonly state: LifeState
  report(): Promise<NodeReport>
}

/** Starts the agent of this machine; it goes on from wherever it was stopped. */
export async function startAgent(options: AgentOptions, signal: AbortSignal): Promise<Agent> {
  await ensureDirectory(options.runtimeDirectory)
  const directory = await openNodeDirectory(options.directory)
  const agent = new RunningAgent(options, directory, signal)
  try {
    await agent.start()
  } catch (error) {
    await agent[Symbol.asyncDispose]()
    throw error
  }
  return agent
}

class RunningAgent implements Agent {
  readonly #options: AgentOptions
  readonly #clock: Clock
  readonly #directory: NodeDirectory
  readonly #signal: AbortSignal
  readonly #vault: NodeVault
  readonly #runner: LifeRunner
  readonly #commands: Commands
  readonly #incidents: string[] = []
  readonly #startedAt = performance.now()
  readonly #stop = new AbortController()
  #membership: Promise<Membership> | undefined
  #ended: Promise<void> | undefined

  constructor(options: AgentOptions, directory: NodeDirectory, signal: AbortSignal) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#directory = directory
    this.#signal = AbortSignal.any([signal, this.#stop.signal])
    const { keys, store, path } = directory
    this.#vault = new NodeVault({
      node: keys.node,
      device: options.device,
      stateDirectory: path,
      pins: () => this.#pins(),
      clock: this.#clock,
      enrolment: () => this.state.enrolment,
    })
    this.#runner = new LifeRunner({
      state: directory.state,
      persist: (state) => store.write(state),
      perform: (effect, stop) => this.#perform(effect, stop),
      onChange: (state) => this.#changed(state),
      clock: this.#clock,
      ...(options.backoff === undefined ? {} : { backoff: options.backoff }),
    })
    this.#commands = new Commands({
      directory: path,
      handlers: handlersOf({
        vault: this.#vault,
        exchange: keys.exchange,
        report: () => this.report(),
        rehearse: () => this.#rehearse(),
        unlock: (passphrase) => this.#push(passphrase),
        tell: (event) => this.#runner.tell(event),
        ending: () => this.#ending(),
      }),
      deliver: async (frame) => await (await this.#membership)?.deliver(frame),
      send: async (frame) => await (await this.#membership)?.send(frame),
      signal: this.#signal,
    })
  }

  get node(): string {
    return this.#directory.keys.node
  }

  get state(): LifeState {
    return this.#runner.state
  }

  async start(): Promise<void> {
    const { repaired } = this.#directory
    if (repaired.length > 0) this.#event({ kind: 'repaired', copies: repaired })
    this.#joinIfEnrolled(this.state)
    await this.#membership
    await this.#runner.tell({ kind: 'started', open: await this.#vault.isMapped() })
    await this.#commands.resume()
  }

  async report(): Promise<NodeReport> {
    const membership = await this.#membership
    return await reportOf({
      state: this.state,
      vault: this.#vault,
      generation: membership?.generation ?? 0,
      wards: (await membership?.wards.wards())?.length ?? 0,
      incidents: this.#incidents,
      uptimeSeconds: Math.floor((performance.now() - this.#startedAt) / 1000),
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended ??= this.#end()
    await this.#ended
  }

  async #end(): Promise<void> {
    this.#stop.abort()
    await this.#commands[Symbol.asyncDispose]()
    await this.#runner[Symbol.asyncDispose]()
    await (await this.#membership?.catch(() => undefined))?.[Symbol.asyncDispose]()
    await this.#directory[Symbol.asyncDispose]()
  }

  #event(event: AgentEvent): void {
    this.#options.onEvent?.(event)
  }

  #changed(state: LifeState): void {
    const { phase, task } = state
    const at = task === undefined ? {} : { task: task.kind, step: task.step }
    this.#event({ kind: 'phase', phase, ...at })
    this.#joinIfEnrolled(state)
    void this.#tellPhase()
  }

  /** The coordinator hears of every change, as long as there is a session; the next hello has it too. */
  async #tellPhase(): Promise<void> {
    try {
      const membership = await this.#membership
      await membership?.send({ kind: 'report', report: await this.report() })
    } catch (error) {
      this.#event({ kind: 'waiting', text: messageOf(error) })
    }
  }

  #pins(): Pins {
    const { enrolment } = this.state
    const ward = enrolment && wardIdentityOf(this.#directory.keys, enrolment)
    return createPins({ extra: [peerPin(ward), temporaryPin(this.#options.runtimeDirectory)] })
  }

  /** Every way in, and every guardian's share by a probe that releases nothing. */
  async #rehearse(): Promise<Record<string, unknown>> {
    const { set, enrolment } = this.state
    const found = await this.#vault.rehearse()
    if (set === undefined || enrolment === undefined) return found
    const ward = wardIdentityOf(this.#directory.keys, enrolment)
    return { ...found, guardians: await probeGuardians(ward, set) }
  }

  #ending(): string | undefined {
    const { task } = this.state
    return task?.kind === 'wipe' || task?.kind === 'leave' ? task.command : undefined
  }

  #joinIfEnrolled({ enrolment }: LifeState): void {
    if (enrolment === undefined || this.#membership !== undefined) return
    const { host, peerPort } = this.#options
    this.#membership = Membership.start({
      directory: this.#directory.path,
      keys: this.#directory.keys,
      enrolment,
      ...(host === undefined ? {} : { host }),
      peerPort,
      clock: this.#clock,
      commands: this.#commands,
      report: () => this.report(),
      tell: (event) => this.#runner.tell(event),
      onSession: ({ kind }) => this.#event({ kind: 'session', state: kind }),
      onIncident: (code, text) => this.#incident(code, text),
      signal: this.#signal,
    })
    this.#membership.then(
      ({ peerPort: port }) => this.#event({ kind: 'peer_port', port }),
      (error: unknown) => {
        this.#membership = undefined // the next report tries again
        this.#incident('agent.membership_failed', messageOf(error))
      },
    )
  }

  #incident(code: string, text: string): void {
    this.#incidents.push(`${code}: ${text}`)
    if (this.#incidents.length > 32) this.#incidents.shift()
    this.#event({ kind: 'incident', code, text })
    const frame = {
      kind: 'incident',
      code,
      text: text.slice(0, 1000),
      at: this.#clock.now(),
    } as const
    void this.#membership?.then((membership) => membership.deliver(frame)).catch(() => undefined)
  }

  /** A pushed key opens the vault beside whatever is being tried. */
  async #push(passphrase: Parameters<NodeVault['unlockWith']>[0]): Promise<void> {
    await this.#vault.unlockWith(passphrase, this.state.genesis)
    await this.#runner.tell({ kind: 'opened' })
  }

  async #perform(effect: LifeEffect, signal: AbortSignal): Promise<LifeEvent> {
    const vault = this.#vault
    switch (effect.kind) {
      case 'open_port':
        return await this.#openPort(signal)
      case 'probe':
        return await vault.probe()
      case 'format':
        await vault.format(effect.enrolment, effect.set, signal)
        return { kind: 'formatted' }
      case 'close':
        await vault.close()
        return { kind: 'closed' }
      case 'unlock':
        await vault.unlock(signal, (text) => this.#event({ kind: 'waiting', text }))
        return { kind: 'opened' }
      case 'bind':
        return { kind: 'bound', keyslot: await vault.bind(effect.set, signal) }
      case 'prove':
        await vault.prove(effect.keyslot, effect.reopen, signal)
        return { kind: 'proven' }
      case 'drop':
        await vault.drop(effect.keep, signal)
        return { kind: 'dropped' }
      case 'hand_over':
        return await this.#handOver(effect.command)
      case 'erase':
        await vault.erase()
        return { kind: 'erased' }
      case 'report':
        return await this.#report(effect)
      default:
        return effect satisfies never
    }
  }

  async #openPort(signal: AbortSignal): Promise<LifeEvent> {
    const { device, host, enrolmentPort, peerPort, wireguardPort } = this.#options
    await serveEnrolment({
      keys: this.#directory.keys,
      vault: this.#vault,
      device,
      ...(host === undefined ? {} : { host }),
      port: enrolmentPort,
      ports: { peer: peerPort, wireguard: wireguardPort },
      onCode: (code) => this.#event({ kind: 'code', code }),
      onOpen: (port) => this.#event({ kind: 'enrolment_port', port }),
      onWrongOffer: (remote, replaced) => {
        const text = `a wrong offer from ${remote}${replaced ? '; the code was replaced' : ''}`
        this.#incident('enrolment.wrong_code', text)
      },
      tell: (event) => this.#runner.tell(event),
      clock: this.#clock,
      signal,
    })
    return { kind: 'closed' }
  }

  /** The coordinator moves the wards before it says leave; here it is only made sure of. */
  async #handOver(command: string): Promise<LifeEvent> {
    const membership = await this.#membership
    const wards = (await membership?.wards.wards()) ?? []
    if (wards.length === 0) return { kind: 'handed_over' }
    const message = `${wards.length} nodes still have this one as a guardian`
    const code = 'agent.wards_remain'
    await this.#finish({ kind: 'result', command, ok: false, code, message })
    return { kind: 'handover_refused', text: message }
  }

  async #report({ what, id }: LifeEffect & { kind: 'report' }): Promise<LifeEvent> {
    this.#joinIfEnrolled(this.state)
    const membership = await this.#membership
    const ended = what === 'left' || what === 'wiped'
    if (ended) await this.#finish({ kind: 'result', command: id, ok: true, data: { what } })
    await membership?.deliver({ kind: 'report', report: await this.report() })
    if (what === 'reshared') await membership?.deliver({ kind: 'result', command: id, ok: true })
    return { kind: 'reported' }
  }

  async #finish(result: Parameters<Commands['finish']>[0]): Promise<void> {
    const membership = await this.#membership
    await membership?.deliver(await this.#commands.finish(result))
  }
}
