import { type Clock, messageOf } from '@holdfast/base'
import type { ServiceStatus } from '@holdfast/protocol/commands'
import type { PolicyDocument } from '@holdfast/protocol/documents'
import type { NodeReport } from '@holdfast/protocol/frames'
import type { CommandHandlers } from './command-handler.ts'
import { firstBootHandler } from './commands-first-boot.ts'
import { logsHandler, restartHandler, servicesHandler } from './commands-services.ts'
import { agentFault } from './faults.ts'
import { firstBoot } from './first-boot.ts'
import { NodeFirstBoot } from './first-boot-steps.ts'
import { HealthChecks } from './health-checks.ts'
import type { NodeKeys } from './identity.ts'
import type { KeySeal } from './key-seal.ts'
import type { LifeState } from './life-state.ts'
import { journal, type LogSource, OwnLog } from './logs.ts'
import type { VaultUsers } from './node-vault.ts'
import { rebootCommand, rebootHandler } from './reboot.ts'
import { statePath, unitName } from './service-unit.ts'
import { Services, type ServicesMount } from './services.ts'
import type { Systemd } from './systemd.ts'
import { VaultMount } from './vault-mount.ts'

// What a node does besides keeping its vault: the services in it, their logs, its reboot.

/** How this machine differs from the usual. */
export interface WorksOptions {
  /** Where the opened vault is mounted. Default /var/lib/holdfast-vault. */
  mountPath?: string
  /** Words of a program that reboots the machine; without it systemd does, where it runs. */
  rebootCommand?: string
  /** A file that has another text after every boot. Default the kernel's. */
  bootIdPath?: string
}

export interface WorksDeps {
  options: WorksOptions
  directory: string
  keys: NodeKeys
  keeping: KeySeal
  runtimeDirectory: string
  systemd: Systemd | undefined
  /** How the vault is mounted. Default: with mount(8), at the options' path. */
  mount?: ServicesMount
  state: () => LifeState
  policy: () => PolicyDocument | undefined
  closeVault: () => Promise<void>
  reopenVault: () => Promise<void>
  /** Something has changed that the next report shows. */
  onChange: () => void
  onIncident: (code: string, text: string) => void
  clock: Clock
}

/** Milliseconds between two runs of the health checks. */
const healthInterval = 15_000

export class NodeWorks implements VaultUsers, AsyncDisposable {
  readonly services: Services
  readonly #deps: WorksDeps
  readonly #health: HealthChecks
  readonly #firstBoot: NodeFirstBoot
  readonly #failures = new Map<string, string>()
  /** What the first boot was last made for. */
  #settled = ''
  readonly #ownLog: OwnLog
  readonly #stop = new AbortController()
  #watching: Promise<void> = Promise.resolve()

  constructor(deps: WorksDeps) {
    const { options, directory, runtimeDirectory, systemd, clock, keys } = deps
    this.#deps = deps
    this.#ownLog = new OwnLog(() => clock.now())
    const mountPath = options.mountPath ?? '/var/lib/holdfast-vault'
    const mount = deps.mount ?? new VaultMount({ directory, path: mountPath, services: statePath })
    this.services = new Services({
      systemd,
      mount,
      why: () => whyNotMapped(deps.state()),
      definitions: () => deps.policy()?.services ?? {},
      hidden: [directory, runtimeDirectory, mount.path],
      credentials: () => this.#firstBoot.credentials(mount.path, this.#serviceNames()),
      lacking: () => this.#firstBoot.lacking(mount.path, this.#serviceNames()),
      onChange: (services) => this.#servicesChanged(services),
      onLook: (vault) => this.#look(vault),
      onFailure: (text) => this.#failed('services.failed', text),
      clock,
    })
    this.#health = new HealthChecks({
      systemd,
      definitions: () => deps.policy()?.healthChecks ?? {},
      onChange: () => this.#healthChanged(),
      onIncident: deps.onIncident,
      clock,
    })
    this.#firstBoot = new NodeFirstBoot({
      directory,
      keys,
      keeping: deps.keeping,
      clock,
      onTouch: (touch, path) => {
        deps.onIncident(`canary.${touch}`, `${path} was ${touch}`)
        deps.onChange()
      },
    })
  }

  /** Begins to look after things; `device` is the vault when it has stayed open. */
  start(device: string | undefined): void {
    const { signal } = this.#stop
    if (device !== undefined) this.afterOpen(device)
    const all = [this.services.watch(signal), this.#watchHealth(signal)]
    this.#watching = Promise.all(all).then(() => undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#watching
  }

  async beforeClose(): Promise<void> {
    this.#health.opened(false)
    await this.services.beforeClose()
  }

  afterOpen(device: string | undefined): void {
    this.#health.opened(true)
    this.services.afterOpen(device)
  }

  /** Remembers what this agent has said, for `logs`. */
  say(text: string): void {
    this.#ownLog.add(text)
  }

  /** What the report says of all this. */
  report(): Pick<NodeReport, 'services' | 'health'> {
    const states = this.services.states.map(({ name, state }) => [name, state] as const)
    const health = [...this.#health.found].map(([name, { state }]) => [name, state] as const)
    return {
      services: Object.fromEntries(states),
      ...(health.length === 0 ? {} : { health: Object.fromEntries(health) }),
    }
  }

  handlers(): CommandHandlers {
    const { options, directory, systemd, clock, closeVault, reopenVault } = this.#deps
    const reboot =
      options.rebootCommand === undefined
        ? systemd && (() => systemd.reboot())
        : rebootCommand(options.rebootCommand)
    return {
      services: servicesHandler(this.services),
      restart: restartHandler(this.services),
      'first-boot': firstBootHandler((order) =>
        this.services.exclusively((vault) => {
          // One that stops half-way is finished at the next look.
          this.#settled = ''
          return firstBoot(directory, this.#firstBoot.steps(vault, this.#serviceNames()), order)
        }),
      ),
      logs: logsHandler(this.#logSource()),
      reboot: rebootHandler({
        directory,
        bootIdPath: options.bootIdPath ?? '/proc/sys/kernel/random/boot_id',
        reboot,
        close: closeVault,
        reopen: reopenVault,
        clock,
      }),
    }
  }

  #logSource(): LogSource {
    if (this.#deps.systemd === undefined) return this.#ownLog
    return journal((service) => {
      if (this.#deps.policy()?.services[service] === undefined)
        throw agentFault('agent.service_unknown', `the manifest names no service ${service}`)
      return unitName(service)
    })
  }

  /** Whoever touched a canary is told first; then what a first boot makes is made. */
  async #look(vault: string | undefined): Promise<void> {
    const { state, directory } = this.#deps
    const { phase, task } = state()
    if (phase !== 'open' || task !== undefined) {
      // What is in the vault after this may be another's, or nothing.
      this.#settled = ''
      return
    }
    await this.#firstBoot.canaries.look(vault)
    const services = this.#serviceNames()
    const settled = [vault ?? '', ...services].join('\n')
    if (settled === this.#settled) return
    try {
      await firstBoot(directory, this.#firstBoot.steps(vault, services), { renew: [] })
      this.#settled = settled
    } catch (error) {
      // Tried again at the next look; services that have their tokens run meanwhile.
      this.#failed('first_boot.failed', messageOf(error))
    }
  }

  async #watchHealth(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#health.look(signal).catch((error: unknown) => {
        this.#failed('health.failed', messageOf(error))
      })
      await this.#deps.clock.sleep(healthInterval, signal).catch(() => undefined)
    }
  }

  /** What fails every few seconds in the same way is told once. */
  #failed(code: string, text: string): void {
    if (this.#failures.get(code) === text) return
    this.#failures.set(code, text)
    this.#deps.onIncident(code, text)
  }

  #serviceNames(): string[] {
    return Object.keys(this.#deps.policy()?.services ?? {}).sort()
  }

  #healthChanged(): void {
    for (const [name, { state, detail }] of this.#health.found)
      this.say(`health check ${name}: ${state} ${detail ?? ''}`)
    this.#deps.onChange()
  }

  #servicesChanged(services: readonly ServiceStatus[]): void {
    for (const { name, state, detail } of services)
      this.say(`service ${name}: ${state} ${detail ?? ''}`)
    this.#deps.onChange()
  }
}

function whyNotMapped({ phase }: LifeState): string {
  if (phase !== 'open') return 'the vault is not open'
  return 'the vault was proven, not mapped: this kernel has no device-mapper'
}
