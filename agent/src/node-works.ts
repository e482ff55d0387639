import type { Clock } from '@holdfast/base'
import type { ServiceStatus } from '@holdfast/protocol/commands'
import type { PolicyDocument } from '@holdfast/protocol/documents'
import type { NodeReport } from '@holdfast/protocol/frames'
import type { CommandHandlers } from './command-handler.ts'
import { logsHandler, restartHandler, servicesHandler } from './commands-services.ts'
import { agentFault } from './faults.ts'
import type { LifeState } from './life-state.ts'
import { journal, type LogSource, OwnLog } from './logs.ts'
import type { VaultUsers } from './node-vault.ts'
import { rebootCommand, rebootHandler } from './reboot.ts'
import { statePath, unitName } from './service-unit.ts'
import { Services } from './services.ts'
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
  runtimeDirectory: string
  systemd: Systemd | undefined
  state: () => LifeState
  policy: () => PolicyDocument | undefined
  closeVault: () => Promise<void>
  reopenVault: () => Promise<void>
  /** Something has changed that the next report shows. */
  onChange: () => void
  onIncident: (code: string, text: string) => void
  onFailure: (text: string) => void
  clock: Clock
}

export class NodeWorks implements VaultUsers, AsyncDisposable {
  readonly services: Services
  readonly #deps: WorksDeps
  readonly #ownLog: OwnLog
  readonly #stop = new AbortController()
  #watching: Promise<void> = Promise.resolve()

  constructor(deps: WorksDeps) {
    const { options, directory, runtimeDirectory, systemd, clock, onFailure } = deps
    this.#deps = deps
    this.#ownLog = new OwnLog(() => clock.now())
    const mountPath = options.mountPath ?? '/var/lib/holdfast-vault'
    this.services = new Services({
      systemd,
      mount: new VaultMount({ directory, path: mountPath, services: statePath }),
      why: () => whyNotMapped(deps.state()),
      definitions: () => deps.policy()?.services ?? {},
      hidden: [directory, runtimeDirectory, mountPath],
      onChange: (services) => this.#servicesChanged(services),
      onFailure,
      clock,
    })
  }

  /** Begins to look after things; `device` is the vault when it has stayed open. */
  start(device: string | undefined): void {
    this.afterOpen(device)
    this.#watching = this.services.watch(this.#stop.signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#watching
  }

  async beforeClose(): Promise<void> {
    await this.services.beforeClose()
  }

  afterOpen(device: string | undefined): void {
    this.services.afterOpen(device)
  }

  /** Remembers what this agent has said, for `logs`. */
  say(text: string): void {
    this.#ownLog.add(text)
  }

  /** What the report says of all this. */
  report(): Pick<NodeReport, 'services'> {
    const states = this.services.states.map(({ name, state }) => [name, state] as const)
    return { services: Object.fromEntries(states) }
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
