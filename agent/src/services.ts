import type { Clock } from '@holdfast/base'
import { messageOf } from '@holdfast/base'
import type { ServiceStatus } from '@holdfast/protocol/commands'
import { type ServiceDefinition, serviceDefinitionSchema } from '@holdfast/protocol/manifest'
import { agentFault } from './faults.ts'
import { statePath, unitName, unitProblem, unitText } from './service-unit.ts'
import { planServices, stateOf } from './services-plan.ts'
import type { Systemd } from './systemd.ts'
import type { VaultMount } from './vault-mount.ts'

// The node's services: started after the vault has been mounted, stopped before it closes, watched in
// between. A service is never started on anything but the mounted vault: its unit does not exist
// before, requires the mount, and asserts it.

/** Where the vault is mounted, and how. */
export type ServicesMount = Pick<VaultMount, 'path' | 'mount' | 'unmount' | 'isMounted'>

export interface ServicesDeps {
  /** Undefined where systemd does not run. */
  systemd: Systemd | undefined
  mount: ServicesMount
  /** Why there is no mapped vault, in words for people. */
  why: () => string
  /** The manifest's services as they came. */
  definitions: () => Readonly<Record<string, unknown>>
  hidden: readonly string[]
  /** Paths of the services' tokens. */
  credentials: () => Readonly<Record<string, string>>
  /** Services without a good token; asked in the mounted vault, and only before something starts. */
  lacking: () => Promise<readonly string[]>
  /** A state has changed. */
  onChange: (services: readonly ServiceStatus[]) => void
  onFailure: (text: string) => void
  /** At every look, before services start: the vault's mount point, if it is mounted. */
  onLook?: (vault: string | undefined) => Promise<void>
  clock: Clock
  /** Milliseconds between two looks. Default 5000. */
  interval?: number
}

export class Services {
  readonly #deps: ServicesDeps
  #turn: Promise<unknown> = Promise.resolve()
  /** The mapped vault. Between the order to close it and its next opening there is none. */
  #device: string | undefined
  #last: readonly ServiceStatus[] = []
  #shown = ''
  /** Services that would have been started if they had a token. */
  #waiting: ReadonlySet<string> = new Set()

  constructor(deps: ServicesDeps) {
    this.#deps = deps
  }

  /** The states as they were last seen. */
  get states(): readonly ServiceStatus[] {
    return this.#last
  }

  /** Looks after the services until the signal says stop; they go on running then. */
  async watch(signal: AbortSignal): Promise<void> {
    const { clock, interval = 5_000, onFailure } = this.#deps
    while (!signal.aborted) {
      try {
        await this.converge()
      } catch (error) {
        onFailure(messageOf(error))
      }
      await clock.sleep(interval, signal).catch(() => undefined)
    }
  }

  /** Makes the machine's units what the manifest says, as far as the vault allows. */
  async converge(): Promise<void> {
    await this.#alone(async () => {
      await this.#apply()
      await this.#look()
    })
  }

  /** Does something while neither services nor the mount change; `vault` as in `onLook`. */
  async exclusively<T>(act: (vault: string | undefined) => Promise<T>): Promise<T> {
    const mounted = async () =>
      await act((await this.#deps.mount.isMounted()) ? this.#deps.mount.path : undefined)
    const turn = this.#turn.catch(() => undefined).then(mounted)
    this.#turn = turn
    return await turn
  }

  /** Stops every service and unmounts the vault, which is about to close. May be done twice. */
  async beforeClose(): Promise<void> {
    this.#device = undefined
    await this.#alone(async () => {
      this.#waiting = new Set()
      await this.#stopAll()
      await this.#deps.mount.unmount()
      await this.#look()
    })
  }

  /**
   * The vault is open, mapped as `device`, or only proven. Returns before anything is started: opening
   * does not wait for it.
   */
  afterOpen(device: string | undefined): void {
    this.#device = device
    this.converge().catch((error: unknown) => this.#deps.onFailure(messageOf(error)))
  }

  /** How every service of the manifest stands now. */
  async status(): Promise<readonly ServiceStatus[]> {
    const { systemd } = this.#deps
    const refusal = await this.#refusal()
    const parsed = this.#parsed()
    const units = parsed.flatMap(({ name, service }) =>
      service === undefined ? [] : [unitName(name)],
    )
    const shown =
      refusal === undefined && systemd !== undefined ? await systemd.show(units) : new Map()
    return parsed.map(({ name, problem }) => {
      const detail = problem ?? refusal
      if (detail !== undefined) return { name, state: 'refused', detail }
      const unit = unitName(name)
      const stands = stateOf(shown.get(unit) ?? {})
      const waits = stands.state === 'stopped' && this.#waiting.has(name)
      return { name, unit, ...stands, ...(waits ? { detail: noToken } : {}) }
    })
  }

  /**
   * Restarts one service and says how it stands then.
   * @throws Fault agent.service_unknown, agent.service_refused
   */
  async restart(name: string): Promise<ServiceStatus> {
    const { systemd } = this.#deps
    const service = (await this.status()).find((each) => each.name === name)
    if (service === undefined)
      throw agentFault('agent.service_unknown', `the manifest names no service ${name}`)
    if (service.state === 'refused' || systemd === undefined)
      throw agentFault('agent.service_refused', `${name} is not run: ${service.detail ?? ''}`)
    await this.#alone(async () => {
      await this.#apply(name)
      if (this.#waiting.has(name))
        throw agentFault('agent.service_refused', `${name} is not run: ${noToken}`)
      await systemd.restart(unitName(name))
    })
    return (await this.status()).find((each) => each.name === name) ?? service
  }

  /** `restarted`: a service that is about to be started in any case. */
  async #apply(restarted?: string): Promise<void> {
    const { systemd, mount, onLook } = this.#deps
    if (this.#device !== undefined && !(await mount.isMounted())) await mount.mount(this.#device)
    await onLook?.(this.#device === undefined ? undefined : mount.path)
    if (systemd === undefined || this.#device === undefined) return
    const wanted = new Map<string, string>()
    for (const { name, service } of this.#parsed()) {
      if (service !== undefined) wanted.set(unitName(name), this.#text(name, service))
    }
    const present = await systemd.present()
    const plan = planServices(present, wanted)
    const starts = restarted !== undefined || plan.some(({ kind }) => kind === 'start')
    this.#waiting = new Set(starts ? await this.#deps.lacking() : [])
    // systemd fails a unit whose credential is not there, and a token of a former key is worth
    // nothing: what lacks one stays as it is, started or not.
    const held = new Set([...this.#waiting].map(unitName))
    const steps =
      held.size === 0 ? plan : planServices(without(present, held), without(wanted, held))
    for (const step of steps) await perform(systemd, step)
  }

  async #stopAll(): Promise<void> {
    const { systemd } = this.#deps
    if (systemd === undefined) return
    for (const step of planServices(await systemd.present(), new Map()))
      await perform(systemd, step)
  }

  #text(name: string, service: ServiceDefinition): string {
    const { hidden, credentials } = this.#deps
    const place = { state: statePath, hidden, credentials: credentials?.() ?? {} }
    return unitText(name, service, place)
  }

  /** The manifest's services; one that this agent cannot run comes with the reason. */
  #parsed(): { name: string; service?: ServiceDefinition; problem?: string }[] {
    return Object.entries(this.#deps.definitions()).map(([name, given]) => {
      const parsed = serviceDefinitionSchema.safeParse(given)
      if (!parsed.success)
        return { name, problem: `this agent does not understand it: ${parsed.error.message}` }
      const problem = unitProblem(parsed.data)
      return problem === undefined ? { name, service: parsed.data } : { name, problem }
    })
  }

  /** Why no service at all is run; undefined when they are. */
  async #refusal(): Promise<string | undefined> {
    const { systemd, why, mount } = this.#deps
    if (systemd === undefined) return 'systemd does not run on this machine'
    if (this.#device === undefined) return why()
    return (await mount.isMounted()) ? undefined : 'the vault is not mounted yet'
  }

  async #look(): Promise<void> {
    this.#last = await this.status()
    const shown = this.#last.map(({ name, state }) => `${name} ${state}`).join('\n')
    if (shown === this.#shown) return
    this.#shown = shown
    this.#deps.onChange(this.#last)
  }

  /** One thing at a time, in the order asked. */
  async #alone(act: () => Promise<void>): Promise<void> {
    const turn = this.#turn.catch(() => undefined).then(act)
    this.#turn = turn
    await turn
  }
}

const noToken = 'it has no token yet, which the first boot makes once the node is enrolled'

function without<T>(units: ReadonlyMap<string, T>, held: ReadonlySet<string>): Map<string, T> {
  return new Map([...units].filter(([unit]) => !held.has(unit)))
}

async function perform(
  systemd: Systemd,
  step: ReturnType<typeof planServices>[number],
): Promise<void> {
  switch (step.kind) {
    case 'stop':
      return await systemd.stop(step.units)
    case 'remove':
      return await systemd.remove(step.unit)
    case 'write':
      return await systemd.write(step.unit, step.text)
    case 'reload':
      return await systemd.reload(step.gone)
    case 'start':
      return await systemd.start(step.units)
    default:
      return step satisfies never
  }
}
