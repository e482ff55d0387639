import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureDirectory, messageOf } from '@holdfast/base'
import type { Log } from '@holdfast/base/log'
import { startAdmin } from './admin.ts'
import { type Administration, offlineAdministration, type ServerStatus } from './administration.ts'
import { AuditLog } from './audit.ts'
import { resumeChange } from './change.ts'
import { isDirectory } from './directory.ts'
import { type Front, type FrontDeps, startFront } from './front.ts'
import { defaultLimits, type Limits } from './limits.ts'
import type { RecoveryEvent } from './listener.ts'
import { Metrics } from './metrics.ts'
import { startPool, type WorkerProgram } from './pool.ts'
import { requireNoRestore } from './restore-marker.ts'
import { type InitialiseOptions, initialise } from './rotate.ts'
import { UsageRecorder } from './usage.ts'
import { DirectoryWatch } from './watch.ts'

export interface ServeOptions {
  readonly directory: string
  readonly port: number
  /** Default 127.0.0.1. */
  readonly host?: string
  /** Make the first keys if there are none. Without it an empty directory is refused. */
  readonly initialise?: InitialiseOptions
  /** Server processes besides this one; 0 serves in this process. Default 0. */
  readonly workers?: number
  /** How to start them; required when `workers` is not 0. */
  readonly workerProgram?: WorkerProgram
  /** Path of the administration socket. Default: a new private folder for temporary files. */
  readonly adminSocket?: string
  /** Where recoveries are logged: `stdout`, `none` (default) or a path. */
  readonly audit?: string
  readonly limits?: Partial<Limits>
  /** How often the directory is looked at and last use is written, in milliseconds. */
  readonly watchInterval?: number
  readonly usageInterval?: number
  readonly log: Log
}

/** A key server that is answering. */
export interface KeyServer extends AsyncDisposable {
  readonly port: number
  readonly adminSocket: string
  readonly administration: Administration
}

/**
 * Serves a key directory in the Tang protocol until disposed of or aborted.
 * @throws Fault keyserver.directory_empty, keyserver.directory_unreadable,
 *   keyserver.permissions_loose, keyserver.listen_failed, keyserver.self_test_failed
 */
export async function serve(options: ServeOptions, signal?: AbortSignal): Promise<KeyServer> {
  const { directory, log } = options
  await using cleanup = new AsyncDisposableStack()
  await prepareDirectory(options)
  const audit = cleanup.use(new AuditLog(options.audit ?? 'none'))
  const usage = cleanup.use(
    new UsageRecorder(directory, options.usageInterval ?? 3_000, (error) =>
      log.error({ error: messageOf(error) }, 'last use could not be written'),
    ),
  )
  const metrics = new Metrics(metricsSource(() => front, audit))
  const front: Front = cleanup.use(
    await startProcesses(options, {
      log,
      onEvents: (events) => record(events, audit, usage, metrics),
      metrics: () => metrics.text(),
      onFaulty: () => undefined, // in this process: every answer is 500 from now on, and says so
    }),
  )
  const watch = cleanup.use(
    new DirectoryWatch({
      directory,
      interval: options.watchInterval ?? 1_000,
      onChange: () => front.reload(),
      onError: (error) => log.warn({ error: messageOf(error) }, 'the key directory changed'),
    }),
  )
  await watch.look()
  const administration = administrationOf(options, front, watch, usage)
  const adminSocket = options.adminSocket ?? (await privateSocket(cleanup))
  cleanup.use(await startAdmin(adminSocket, administration, log))
  const running = cleanup.move()
  const stop = once(() => running.disposeAsync())
  signal?.addEventListener('abort', () => void stop(), { once: true })
  if (signal?.aborted === true) await stop() // while it was starting
  return { port: front.port, adminSocket, administration, [Symbol.asyncDispose]: stop }
}

function once(action: () => Promise<void>): () => Promise<void> {
  let result: Promise<void> | undefined
  return () => {
    result ??= action()
    return result
  }
}

async function prepareDirectory({ directory, initialise: first, log }: ServeOptions) {
  if (first !== undefined) await ensureDirectory(directory)
  if (!isDirectory(directory)) return
  await requireNoRestore(directory)
  const resumed = await resumeChange(directory)
  if (resumed !== undefined)
    log.warn({ change: resumed.what }, 'an interrupted change was finished')
  if (first !== undefined) await initialise(directory, first)
}

async function startProcesses(options: ServeOptions, deps: FrontDeps): Promise<Front> {
  const { directory, port, host = '127.0.0.1', workers = 0, workerProgram } = options
  const limits = { ...defaultLimits, ...options.limits }
  if (workers === 0 || workerProgram === undefined) {
    return await startFront({ directory, host, port, limits }, deps)
  }
  // An address is granted what it is granted by the server, however many processes that is.
  const share = { rate: limits.rate / workers, burst: Math.ceil(limits.burst / workers) }
  const settings = { directory, host, port, limits: { ...limits, ...share } }
  return await startPool(workers, workerProgram, settings, deps)
}

function metricsSource(front: () => Front, audit: AuditLog) {
  return {
    gauges: () => front().gauges(),
    get workers() {
      return front().workers
    },
    get restarts() {
      return front().restarts
    },
    get auditDropped() {
      return audit.dropped
    },
    health: () => front().health(),
  }
}

function record(
  events: readonly RecoveryEvent[],
  audit: AuditLog,
  usage: UsageRecorder,
  metrics: Metrics,
): void {
  for (const { status, kid, at } of events) if (status === 200) usage.note(kid, at)
  audit.write(events)
  metrics.add(events)
}

/** The directory's administration, with every process brought up to date before it returns. */
function administrationOf(
  { directory }: ServeOptions,
  front: Front,
  watch: DirectoryWatch,
  usage: UsageRecorder,
): Administration {
  const offline = offlineAdministration(directory)
  // Waits for every process, so only what depends on last uses begins with it: a hold does not wait.
  const writeUsage = async () => {
    await front.collect()
    await usage.flush()
  }
  const apply = async <T>(action: () => Promise<T>): Promise<T> => {
    using _ = watch.pause() // one swap at the end, not one per file
    await usage.flush()
    try {
      return await action()
    } finally {
      await front.reload()
    }
  }
  const status = (): ServerStatus => ({
    directory,
    port: front.port,
    pid: process.pid,
    workers: front.workers,
    restarts: front.restarts,
    connections: front.gauges().connections,
    health: front.health(),
  })
  return {
    status: async () => status(),
    list: async () => {
      await writeUsage()
      return await offline.list()
    },
    rotate: (options) => apply(() => offline.rotate(options)),
    retire: async (options) => {
      await writeUsage()
      return await apply(() => offline.retire(options))
    },
    addPrefix: (name, options) => apply(() => offline.addPrefix(name, options)),
    revokePrefix: (name) => apply(() => offline.revokePrefix(name)),
    markCompromised: (kids, note) => apply(() => offline.markCompromised(kids, note)),
    hold: (reason) => apply(() => offline.hold(reason)),
    release: () => apply(() => offline.release()),
    reload: () => apply(async () => undefined),
  }
}

/** A socket in a new folder that only this user may enter; the folder goes when the server ends. */
async function privateSocket(cleanup: AsyncDisposableStack): Promise<string> {
  const folder = join(tmpdir(), `holdfast-keyserver-${randomBytes(8).toString('hex')}`)
  await ensureDirectory(folder)
  cleanup.defer(() => rm(folder, { recursive: true, force: true }))
  return join(folder, 'admin.sock')
}
