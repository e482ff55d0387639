import { join, resolve } from 'node:path'
import {
  type Clock,
  defined,
  ensureDirectory,
  lock,
  readBounded,
  systemClock,
} from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import type { CeremonyDeps } from './ceremonies.ts'
import { Coordinator } from './coordinator.ts'
import { filePin } from './file-pin.ts'
import { keepResuming, type ResumeEvent, resume } from './resume.ts'
import { type ServerOptions, serveApi } from './server.ts'
import type { StoreLocation } from './store.ts'
import { findTpm, tpmCounter } from './tpm-counter.ts'

// A coordinator as a service: opens its store, takes up what a crash has left, answers its API, and
// looks after unfinished things until it is stopped.

export interface ServiceOptions
  extends Pick<ServerOptions, 'origins' | 'limits' | 'report' | 'addresses' | 'sink'> {
  directory: string
  store: StoreLocation
  host: string
  port: number
  /** This instance's own name. */
  instance: string
  clock?: Clock
  /** The TPM that witnesses the generation: `auto` for this machine's own, `off`, or its TCTI. */
  tpm?: string
  /** Milliseconds between looks at what other instances have done. Default 2 000. */
  refresh?: number
  onResume: (event: ResumeEvent) => void
}

export interface RunningService {
  readonly port: number
  readonly coordinator: Coordinator
}

/**
 * Where the state is: SQLite in the coordinator's directory, or PostgreSQL, whose addresses are the
 * lines of a file, because they may hold a password.
 */
export async function locateStore(directory: string, store: string): Promise<StoreLocation> {
  if (store === 'sqlite') return { engine: 'sqlite', path: join(directory, 'state.db') }
  const text = (await readBounded(store, 65_536)).toString('utf8')
  const url = text.split('\n').filter((line) => line.trim() !== '')
  return { engine: 'postgresql', url }
}

/** The TCTI of the TPM that is in use; undefined when there is none. */
async function tctiOf(tpm: string): Promise<string | undefined> {
  const tcti = tpm === 'auto' ? await findTpm() : tpm
  return tcti === 'off' ? undefined : tcti
}

/** Serves until `signal` aborts. `onReady` is told when it listens. */
export async function runService(
  options: ServiceOptions,
  onReady: (service: RunningService) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { store, host, port, instance, clock = systemClock, onResume } = options
  const directory = resolve(options.directory) // the host key's pin holds a path that stays
  await ensureDirectory(directory)
  const tcti = await tctiOf(options.tpm ?? 'off')
  const pins = createPins({ ...defined({ tcti }), extra: [filePin(directory)] })
  // PostgreSQL keeps its clients apart; a SQLite file has one process, for as long as that lives.
  await using _alone =
    store.engine === 'sqlite'
      ? await lock(join(directory, 'lock'), `the coordinator in ${directory}`)
      : undefined
  const counter = tcti === undefined ? undefined : tpmCounter(tcti)
  await using coordinator = await Coordinator.start({ directory, store, pins, counter })
  const deps: CeremonyDeps = {
    store: coordinator.store,
    clock,
    cluster: () => coordinator.header?.cluster ?? '',
  }
  for (const event of await resume(coordinator, deps)) onResume(event)
  const { origins, limits, report, addresses, sink } = options
  await using server = await serveApi(
    {
      ...{ coordinator, host, port, instance, clock },
      ...defined({ origins, limits, report, addresses, sink }),
    },
    signal,
  )
  await onReady({ port: server.port, coordinator })
  const times = { clock, interval: options.refresh ?? 2000, report: onResume }
  await keepResuming(coordinator, deps, times, signal)
}
