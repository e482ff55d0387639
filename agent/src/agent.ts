import { type Clock, ensureDirectory, messageOf, systemClock } from '@holdfast/base'
import type { AgentFrame, Enrolment, NodeReport } from '@holdfast/protocol/frames'
import { createPins, type Pins } from '@holdfast/seal'
import type { Agent, AgentEvent, AgentOptions } from './agent-options.ts'
import { handlersOf } from './command-table.ts'
import { Commands } from './commands.ts'
import { publicPem } from './identity.ts'
import { LifeEffects } from './life-effects.ts'
import { isEnd } from './life-end.ts'
import { LifeRunner } from './life-runner.ts'
import type { LifeState } from './life-state.ts'
import { LockedApi } from './locked-api.ts'
import { Membership, wardIdentityOf } from './membership.ts'
import { type NodeDirectory, openNodeDirectory } from './node-directory.ts'
import type { NetworkStatus } from './node-network.ts'
import { NodeVault } from './node-vault.ts'
import { NodeWorks } from './node-works.ts'
import type { WardIdentity } from './peer-client.ts'
import { peerPin } from './peer-pin.ts'
import { reportOf } from './report.ts'
import { Reporting } from './reporting.ts'
import { probeGuardians } from './share-health.ts'
import { type Systemd, systemdOf } from './systemd.ts'
import { temporaryPin } from './temporary-pin.ts'
import { UnlockDesk } from './unlock-desk.ts'
import { UnlockProgress } from './unlock-progress.ts'

/** Starts the agent of this machine; it goes on from wherever it was stopped. */
export async function startAgent(options: AgentOptions, signal: AbortSignal): Promise<Agent> {
  await ensureDirectory(options.runtimeDirectory)
  const directory = await openNodeDirectory(options.directory, options.tpm)
  const agent = new RunningAgent(options, directory, await systemdOf(), signal)
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
  readonly #effects: LifeEffects
  readonly #works: NodeWorks
  readonly #desk: UnlockDesk
  readonly #progress: UnlockProgress
  readonly #incidents: string[] = []
  readonly #startedAt = performance.now()
  readonly #stop = new AbortController()
  /**
   * Resolves when the phase is that of this start, and what the one before has left is resumed: what was
   * written down is the phase of the one before. No hello is sent until then.
   */
  readonly #looked = Promise.withResolvers<void>()
  readonly #reporting = new Reporting({
    report: () => this.report(),
    send: async (frame) => await (await this.#membership)?.send(frame),
    onFailure: (text) => this.#event({ kind: 'waiting', text }),
  })
  #membership: Promise<Membership> | undefined
  #member: Membership | undefined
  #joinFailure = ''
  #ended: Promise<void> | undefined
  #forgotten = false

  constructor(
    options: AgentOptions,
    directory: NodeDirectory,
    systemd: Systemd | undefined,
    signal: AbortSignal,
  ) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#directory = directory
    this.#signal = AbortSignal.any([signal, this.#stop.signal])
    const { keys, store, path } = directory
    this.#progress = new UnlockProgress(this.#clock)
    this.#works = this.#nodeWorks(systemd)
    this.#vault = new NodeVault({
      node: keys.node,
      device: options.device,
      stateDirectory: path,
      pins: () => this.#pins(),
      clock: this.#clock,
      enrolment: () => this.state.enrolment,
      policy: () => this.#member?.documents.policy,
      set: () => this.state.set,
      users: this.#works,
    })
    this.#runner = new LifeRunner({
      state: directory.state,
      persist: async (state) => {
        if (!this.#forgotten) await store.write(state)
      },
      perform: async (effect, stop) => await this.#effects.perform(effect, stop),
      onChange: (state) => this.#changed(state),
      clock: this.#clock,
      ...(options.backoff === undefined ? {} : { backoff: options.backoff }),
    })
    this.#commands = new Commands({
      directory: path,
      handlers: handlersOf({
        works: this.#works,
        vault: this.#vault,
        exchange: keys.exchange,
        report: () => this.report(),
        rehearse: () => this.#rehearse(),
        push: (sealed) => this.#desk.push(sealed),
        phase: () => this.state.phase,
        tell: (event) => this.#runner.tell(event),
        ending: () => this.#ending(),
        supersede: (command, by) => this.#supersede(command, by),
      }),
      deliver: async (frame) => await (await this.#membership)?.deliver(frame),
      send: async (frame) => await (await this.#membership)?.send(frame),
      signal: this.#signal,
    })
    this.#desk = new UnlockDesk({
      directory: path,
      exchange: keys.exchange,
      state: () => this.state,
      open: (passphrase, renew) => this.#vault.unlockWith(passphrase, renew),
      close: () => this.#vault.close(),
      tell: (event) => this.#runner.tell(event),
    })
    this.#effects = this.#lifeEffects()
  }

  #nodeWorks(systemd: Systemd | undefined): NodeWorks {
    const { works = {}, runtimeDirectory } = this.#options
    return new NodeWorks({
      options: works,
      directory: this.#directory.path,
      keys: this.#directory.keys,
      keeping: this.#directory.keeping,
      runtimeDirectory,
      systemd,
      state: () => this.state,
      policy: () => this.#member?.documents.policy,
      closeVault: () => this.#vault.close(),
      reopenVault: async () => {
        await this.#runner.tell({ kind: 'started', open: await this.#vault.isMapped() })
      },
      onChange: () => this.#report(),
      onIncident: (code, text) => this.#incident(code, text),
      clock: this.#clock,
    })
  }

  #lifeEffects(): LifeEffects {
    return new LifeEffects({
      options: this.#options,
      directory: this.#directory,
      vault: this.#vault,
      progress: this.#progress,
      state: () => this.state,
      tell: (event) => this.#runner.tell(event),
      wards: async () => (await (await this.#membership)?.wards.wards()) ?? [],
      report: () => this.report(),
      deliver: (frame) => this.#deliver(frame),
      finish: (result) => this.#commands.finish(result),
      onEvent: (event) => this.#event(event),
      onIncident: (code, text) => this.#incident(code, text),
      onForgotten: () => this.#onForgotten(),
      clock: this.#clock,
    })
  }

  async #deliver(frame: AgentFrame): Promise<void> {
    this.#joinIfEnrolled(this.state)
    await (await this.#membership)?.deliver(frame)
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
    // Without the others this node still opens its own vault; what is wrong has been told.
    await this.#membership?.catch(() => undefined)
    const device = await this.#vault.mapped()
    this.#works.start(device)
    await this.#runner.tell({ kind: 'started', open: device !== undefined })
    // Before there is a session: an order that comes now would be taken for one that was interrupted.
    await this.#commands.resume()
    this.#looked.resolve()
  }

  async report(): Promise<NodeReport> {
    await this.#looked.promise
    const membership = await this.#membership
    return await reportOf({
      state: this.state,
      vault: this.#vault,
      works: this.#works.report(),
      network: await this.#network(),
      keys: this.#directory.keeping.kind,
      generation: membership?.generation ?? 0,
      wards: (await membership?.wards.wards())?.length ?? 0,
      incidents: this.#incidents,
      uptimeSeconds: Math.floor((performance.now() - this.#startedAt) / 1000),
    })
  }

  async #network(): Promise<NetworkStatus> {
    const none = { network: 'mutual-tls', networkReason: "this node is nobody's yet" } as const
    return (await this.#member?.network.status()) ?? none
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended ??= this.#end()
    await this.#ended
  }

  async #end(): Promise<void> {
    this.#stop.abort()
    this.#looked.resolve() // nobody may wait for what does not come any more
    await this.#commands[Symbol.asyncDispose]()
    await this.#runner[Symbol.asyncDispose]()
    await this.#works[Symbol.asyncDispose]()
    await (await this.#membership?.catch(() => undefined))?.[Symbol.asyncDispose]()
    await this.#reporting[Symbol.asyncDispose]()
    await this.#directory[Symbol.asyncDispose]()
  }

  #event(event: AgentEvent): void {
    if (event.kind !== 'code') this.#works.say(JSON.stringify(event))
    this.#options.onEvent?.(event)
  }

  #changed(state: LifeState): void {
    const { phase, task } = state
    const at = task === undefined ? {} : { task: task.kind, step: task.step }
    this.#event({ kind: 'phase', phase, ...at })
    this.#joinIfEnrolled(state)
    this.#report()
  }

  #report(): void {
    if (!this.#forgotten) this.#reporting.changed()
  }

  #pins(): Pins {
    const { enrolment } = this.state
    const ward = enrolment && this.#ward(enrolment)
    const { tpm } = this.#options
    const tcti = tpm === undefined ? {} : { tcti: tpm }
    return createPins({
      ...tcti,
      extra: [peerPin(ward), temporaryPin(this.#options.runtimeDirectory)],
    })
  }

  #ward(enrolment: Enrolment): WardIdentity {
    const tunnelTo = (guardian: string) => this.#member?.network.urlOf(guardian)
    return wardIdentityOf(this.#directory.keys, enrolment, tunnelTo)
  }

  /** Every way in, and every guardian's share by a probe that releases nothing. */
  async #rehearse(): Promise<Record<string, unknown>> {
    const { set, enrolment } = this.state
    const found = await this.#vault.rehearse()
    if (set === undefined || enrolment === undefined) return found
    const ward = this.#ward(enrolment)
    return { ...found, guardians: await probeGuardians(ward, set) }
  }

  #ending(): string | undefined {
    const { task } = this.state
    return isEnd(task) ? task.command : undefined
  }

  async #supersede(command: string, by: string): Promise<void> {
    const message = `the order ${by} goes further and took its place`
    const code = 'agent.command_refused'
    const result = await this.#commands.finish({
      kind: 'result',
      command,
      ok: false,
      code,
      message,
    })
    this.#deliver(result).catch(() => undefined) // with the session; it is written down
  }

  /** The identity has gone; whoever started this process starts a new machine next. */
  #onForgotten(): void {
    this.#forgotten = true
    this.#stop.abort() // sessions and servers would write beside what has been destroyed
    this.#event({ kind: 'forgotten' })
  }

  #joinIfEnrolled({ enrolment }: LifeState): void {
    if (enrolment === undefined || this.#membership !== undefined) return
    const { host, peerPort, wireguardPort, tunnel } = this.#options
    this.#membership = Membership.start({
      directory: this.#directory.path,
      keys: this.#directory.keys,
      keeping: this.#directory.keeping,
      enrolment,
      ...(host === undefined ? {} : { host }),
      peerPort,
      wireguardPort,
      tunnel,
      clock: this.#clock,
      commands: this.#commands,
      lockedApi: new LockedApi({
        node: this.node,
        exchange: publicPem(this.#directory.keys.exchange),
        state: async () => {
          await this.#looked.promise
          return this.state
        },
        progress: this.#progress,
        network: async () => (await this.#network()).network,
        keys: this.#directory.keeping.kind,
        recovery: () => this.#vault.recoveryWays(),
        push: (sealed) => this.#desk.push(sealed),
        onIncident: (code, text) => this.#incident(code, text),
        monotonic: () => performance.now(),
      }),
      report: () => this.#reporting.greeting(),
      tell: (event) => this.#runner.tell(event),
      state: () => this.state,
      onSession: ({ kind }) => {
        if (kind === 'open') this.#reporting.welcomed()
        this.#event({ kind: 'session', state: kind })
      },
      onNetwork: () => this.#report(),
      onPeerPort: (port) => this.#event({ kind: 'peer_port', port }),
      ...(this.#options.backoff === undefined ? {} : { backoff: this.#options.backoff }),
      onIncident: (code, text) => this.#incident(code, text),
      signal: this.#signal,
    })
    this.#membership.then(
      (membership) => {
        this.#member = membership
      },
      (error: unknown) => {
        this.#membership = undefined
        this.#rejoinLater(messageOf(error))
      },
    )
  }

  /** Whatever it was - a file, a disk - may be mended while the agent runs; it is told once. */
  #rejoinLater(text: string): void {
    if (text !== this.#joinFailure) this.#incident('agent.membership_failed', text)
    this.#joinFailure = text
    const wait = this.#options.backoff?.most ?? 60_000
    this.#clock.sleep(wait, this.#signal).then(
      () => this.#joinIfEnrolled(this.state),
      () => undefined, // the agent stops
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
}
