import { open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, isFault } from '@holdfast/base'
import { createPins, type Pins, type Policy, parsePolicy } from '@holdfast/seal'
import { createVault, keepBackups, readUuid, type VaultDeps, type VolumeRef } from '@holdfast/vault'
import { drillsFault } from './faults.ts'
import type {
  FleetRehearsal,
  FleetStatus,
  FleetVolume,
  LocalFleet,
  LocalFleetOptions,
} from './fleet.ts'
import { holdersPolicy, holdersPresent, type LocalHolder, makeHolders } from './holders.ts'
import { Proofs } from './proofs.ts'
import { launchServers, type ServerProcess } from './server-process.ts'
import { Steps } from './steps.ts'

const defaultSize = 64 * 1024 * 1024

/**
 * Starts key servers in their own processes, makes holders and a real LUKS2 volume bound to
 * `threshold` of the servers, with a recovery slot for `holdersNeeded` of the holders, and opens it
 * both ways. Disposing stops the processes and removes the directory's content.
 * @throws Fault drills.directory_not_empty, and those of the key server, seal and vault
 */
export async function startLocalFleet(
  options: LocalFleetOptions,
  signal?: AbortSignal,
): Promise<RunningFleet> {
  const { directory, servers = 3, holders = 3 } = options
  const steps = new Steps(servers + 2, options.onProgress)
  await requireEmpty(directory)
  await using cleanup = new AsyncDisposableStack()
  cleanup.defer(() => emptyDirectory(directory))
  const running = await launchServers(
    cleanup,
    Array.from({ length: servers }, (_, index) => ({
      name: `server-${index + 1}`,
      home: join(directory, 'servers', `${index}`),
      command: options.command,
    })),
    ({ name, url }) => steps.finish(`${name} answers on ${url}`),
  )
  signal?.throwIfAborted()
  const people = await makeHolders(join(directory, 'holders'), holders)
  steps.finish(`${people.length} holders have keys`)
  signal?.throwIfAborted()
  const volume = await makeVolume(options, running, people, signal)
  signal?.throwIfAborted()
  steps.finish(`${volume.device} is bound and has been opened both ways`)
  return new RunningFleet(directory, running, people, volume, cleanup.move())
}

/** The fleet while it runs, with what only the drills need. */
export class RunningFleet implements LocalFleet {
  readonly directory: string
  readonly servers: readonly ServerProcess[]
  readonly holders: readonly LocalHolder[]
  readonly volume: FleetVolume
  readonly pins: Pins
  /** For operations by an operator who has every holder at hand. */
  readonly deps: VaultDeps
  readonly #proofs: Proofs
  readonly #cleanup: AsyncDisposableStack

  constructor(
    directory: string,
    servers: readonly ServerProcess[],
    holders: readonly LocalHolder[],
    volume: FleetVolume,
    cleanup: AsyncDisposableStack,
  ) {
    this.directory = directory
    this.servers = servers
    this.holders = holders
    this.volume = volume
    this.pins = createPins({ holders: holdersPresent(holders) })
    this.deps = depsOf(volume.stateDirectory, this.pins, volume.recovery)
    this.#proofs = new Proofs(this.deps, volume)
    this.#cleanup = cleanup
  }

  async status(): Promise<FleetStatus> {
    const { device } = this.volume
    const header = await readUuid({ device }).then(
      () => 'readable' as const,
      (error: unknown) => {
        if (!isFault(error)) throw error
        return 'unreadable' as const
      },
    )
    const servers = this.servers.map(({ name, url, pid }) => {
      return { name, url, pid, running: pid !== undefined }
    })
    return { servers, volume: { device, header } }
  }

  rehearse(signal?: AbortSignal): Promise<FleetRehearsal> {
    return this.#proofs.rehearse(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync()
  }
}

/** Any `threshold` of the servers, each pinned to the signing key read at the server itself. */
export async function serversPolicy(
  servers: readonly ServerProcess[],
  threshold: number,
): Promise<Policy> {
  const tang = await Promise.all(servers.map((server) => server.pin()))
  return parsePolicy('sss', { t: threshold, pins: { tang } })
}

/** Vault operations that keep sealed header backups, as `holdfast vault` does. */
export function depsOf(stateDirectory: string, pins: Pins, backups?: Policy): VaultDeps {
  const deps = { pins, stateDirectory, actor: 'local fleet' }
  return backups === undefined ? deps : { ...deps, afterChange: keepBackups(deps, backups) }
}

/** An empty file of this many bytes that takes no space yet. */
export async function makeImage(path: string, size = defaultSize): Promise<VolumeRef> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.truncate(size)
  } finally {
    await file.close()
  }
  return { device: path }
}

async function makeVolume(
  options: LocalFleetOptions,
  servers: readonly ServerProcess[],
  holders: readonly LocalHolder[],
  signal: AbortSignal | undefined,
): Promise<FleetVolume> {
  const { directory, threshold = 2, holdersNeeded = 2, volumeSize } = options
  const stateDirectory = join(directory, 'state')
  await ensureDirectory(stateDirectory)
  const automatic = await serversPolicy(servers, threshold)
  const recovery = holdersPolicy(holders, holdersNeeded)
  const { device } = await makeImage(join(directory, 'vault.img'), volumeSize)
  const pins = createPins({ holders: holdersPresent(holders) })
  await createVault(
    depsOf(stateDirectory, pins, recovery),
    { device },
    { automatic, recovery, ...(signal === undefined ? {} : { signal }) },
  )
  return { device, stateDirectory, automatic, recovery }
}

async function requireEmpty(directory: string): Promise<void> {
  await ensureDirectory(directory)
  if ((await readdir(directory)).length === 0) return
  throw drillsFault('drills.directory_not_empty', `${directory} is not empty`, {
    hint: 'name a new directory: the fleet removes what is in its own when it ends',
  })
}

async function emptyDirectory(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    await rm(join(directory, name), { recursive: true, force: true })
  }
}
