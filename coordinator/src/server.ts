import { createServer, type Server } from 'node:https'
import { hostname } from 'node:os'
import { type Clock, defined, messageOf, systemClock } from '@holdfast/base'
import { serverTls } from '@holdfast/link'
import { createAdaptorServer } from '@hono/node-server'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { secureHeaders } from 'hono/secure-headers'
import { Agents } from './agents.ts'
import { startDuties } from './agents-duties.ts'
import { type SinkPlace, startAuditExport } from './audit-sink.ts'
import type { CeremonyDeps } from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import { followManifest } from './manifest-duty.ts'
import { mountMetrics } from './metrics.ts'
import { addressOf, createApp, type ServerDeps } from './mount.ts'
import { mountNodes } from './nodes-routes.ts'
import { type PerMinute, RateLimits } from './rate-limits.ts'
import { mountCeremonies, shown } from './routes-ceremonies.ts'
import { mountKeys } from './routes-keys.ts'
import { mountManifest } from './routes-manifest.ts'
import { mountStatus } from './routes-status.ts'
import { mountUsers } from './routes-users.ts'

export interface ServerOptions {
  coordinator: Coordinator
  host: string
  port: number
  instance: string
  clock?: Clock
  origins?: readonly string[]
  report?: (error: unknown) => void
  /** Fixed limits; without them, those of the manifest in force. */
  limits?: PerMinute
  /** `https://host:port` of every instance, for nodes; default this one's own. */
  addresses?: readonly string[]
  /** Where the audit log is copied to. */
  sink?: SinkPlace
}

export interface RunningServer extends AsyncDisposable {
  readonly port: number
  readonly server: Server
  readonly app: OpenAPIHono
}

/** Before a manifest says otherwise. */
const usualLimits: PerMinute = { all: 1200, open: 240, logins: 10 }

/** How long a peer may take for each step; agents' sessions have their own rules once they stand. */
const patience = {
  handshakeTimeout: 10_000,
  headersTimeout: 10_000,
  requestTimeout: 60_000,
  keepAliveTimeout: 10_000,
  connectionsCheckingInterval: 5_000,
}

/** The whole API without nodes, as an application without a socket. */
function createApi(deps: ServerDeps): OpenAPIHono {
  const { coordinator, clock, limits } = deps
  const ceremonies: CeremonyDeps = {
    store: coordinator.store,
    clock,
    cluster: () => coordinator.header?.cluster ?? '',
  }
  const app = createApp(deps.report ?? (() => undefined))
  mountMetrics(app, deps)
  app.use(async (context, next) => {
    limits.take(addressOf(context))
    await next()
    context.header('Cache-Control', 'no-store') // tokens and shares are in answers
  })
  app.use(secureHeaders())
  mountStatus(app, deps, ceremonies)
  mountCeremonies(app, deps, ceremonies)
  mountManifest(app, deps, ceremonies, shown)
  mountKeys(app, deps, ceremonies)
  mountUsers(app, deps)
  mountDocument(app)
  return app
}

/** The OpenAPI document of everything that is mounted, made once. */
function mountDocument(app: OpenAPIHono): void {
  let document: unknown
  app.get('/v1/openapi.json', (context) => {
    const info = { title: 'Holdfast coordinator', version: '1' }
    document ??= app.getOpenAPI31Document({ openapi: '3.1.0', info })
    return context.json(document as object) // the generator's own type is not JSON's
  })
}

/**
 * Serves the API over TLS with the identity's own certificate. Agents are taken in from the first
 * moment it listens; when it stops, it takes nobody new, sends its agents to other instances, and
 * lets requests that have begun come to their end.
 * @throws Fault coordinator.listen_failed
 */
export async function serveApi(
  options: ServerOptions,
  signal: AbortSignal,
): Promise<RunningServer> {
  const { coordinator, host, port, instance, clock = systemClock, origins = [] } = options
  const limits = new RateLimits(clock, options.limits ?? usualLimits)
  const deps: ServerDeps = {
    ...{ coordinator, clock, limits, origins, instance },
    ...defined({ report: options.report }),
  }
  const onError = (error: unknown) => options.report?.(error)
  // What has begun ends again when the rest cannot: it would keep the process alive for nothing.
  await using begun = new AsyncDisposableStack()
  const { sink } = options
  const exported =
    sink === undefined
      ? undefined
      : begun.use(startAuditExport({ store: coordinator.store, clock, place: sink }))
  const alarms = async () => [await exported?.alarm()].filter((alarm) => alarm !== undefined)
  const app = createApi({ ...deps, alarms })
  const server = createAdaptorServer({
    fetch: app.fetch,
    createServer,
    serverOptions: {
      ...serverTls(coordinator.identity, coordinator.header?.authority),
      ...patience,
      requestCert: true, // also before there is an authority: a claim makes it while this serves
      rejectUnauthorized: false, // browsers and programs have no certificate; agents are checked where they connect
    },
  }) as Server // createServer above is node:https's
  const agents = begun.use(await Agents.start({ coordinator, server, clock, instance, onError }))
  const addresses: string[] = [...(options.addresses ?? [])]
  mountNodes(app, { ...deps, agents: () => agents, coordinators: addresses })
  await listen(server, { host, port, onError })
  if (addresses.length === 0) addresses.push(ownAddress(host, portOf(server, port)))
  // A claim makes the authority; a restored host gets its cluster's identity back while it serves.
  coordinator.onTrust(() => agents.recogniseNodes())
  begun.use(startDuties({ agents, store: coordinator.store, clock, onError }))
  begun.use(
    followManifest({
      ...{ coordinator, agents, limits, clock, onError },
      fixed: options.limits !== undefined,
    }),
  )
  const running = begun.move()
  const stop = once(async () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    try {
      await running.disposeAsync() // the duties first, then the agents, then the sink
    } finally {
      await drain(server, closed, clock)
    }
  })
  signal.addEventListener('abort', () => void stop().catch(onError), { once: true })
  return { port: portOf(server, port), server, app, [Symbol.asyncDispose]: stop }
}

/** Where nodes find an instance that was told no address: whoever listens everywhere is found by name. */
function ownAddress(host: string, port: number): string {
  const found = host === '0.0.0.0' || host === '::' ? hostname() : host
  return `https://${found.includes(':') ? `[${found}]` : found}:${port}`
}

/** @throws Fault coordinator.listen_failed */
async function listen(
  server: Server,
  { host, port, onError }: { host: string; port: number; onError: (error: unknown) => void },
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const refuse = (cause: Error) => {
      const text = `cannot listen on ${host}:${port}: ${messageOf(cause)}`
      const hint = 'choose another --port or --host, or stop what listens there'
      reject(coordinatorFault('coordinator.listen_failed', text, { cause, hint }))
    }
    server.once('error', refuse)
    server.listen(port, host, () => {
      server.off('error', refuse)
      server.on('error', onError) // a connection that could not be taken; the next one may be
      resolve()
    })
  })
}

const drainSteps = 100
const drainStep = 50

/** Waits five seconds for requests that have begun; what still runs then is cut off. */
async function drain(server: Server, closed: Promise<void>, clock: Clock): Promise<void> {
  const over = new AbortController()
  void closed.then(() => over.abort())
  for (let step = 0; step < drainSteps && !over.signal.aborted; step += 1) {
    server.closeIdleConnections()
    await clock.sleep(drainStep, over.signal).catch(() => undefined)
  }
  server.closeAllConnections()
  await closed
}

function once(task: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined
  return () => {
    running ??= task()
    return running
  }
}

function portOf(server: Server, asked: number): number {
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : asked
}
