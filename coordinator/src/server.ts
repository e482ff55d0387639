import { createServer, type Server } from 'node:https'
import { type Clock, systemClock } from '@holdfast/base'
import { createAdaptorServer } from '@hono/node-server'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { bodyLimit } from 'hono/body-limit'
import { secureHeaders } from 'hono/secure-headers'
import { Agents } from './agents.ts'
import { startDuties } from './agents-duties.ts'
import { apiFault } from './api-faults.ts'
import type { CeremonyDeps } from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import { mountMetrics } from './metrics.ts'
import { createApp, type ServerDeps } from './mount.ts'
import { mountNodes } from './nodes-routes.ts'
import { RateLimits } from './rate-limits.ts'
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
  limits?: { all: number; open: number }
  /** `https://host:port` of every instance, for nodes; default this one's own. */
  addresses?: readonly string[]
}

export interface RunningServer extends AsyncDisposable {
  readonly port: number
  readonly server: Server
  readonly app: OpenAPIHono
}

const largestBody = 4 * 1024 * 1024

/** The whole API as an application without a socket. */
export function createApi(deps: ServerDeps): OpenAPIHono {
  const { coordinator, clock } = deps
  const ceremonies: CeremonyDeps = {
    store: coordinator.store,
    clock,
    cluster: () => coordinator.header?.cluster ?? '',
  }
  const app = createApp(deps.report ?? (() => undefined))
  app.use(secureHeaders())
  app.use(
    bodyLimit({
      maxSize: largestBody,
      onError: (context) =>
        context.json(
          {
            error: apiFault(
              'api.body_too_large',
              `a request is larger than ${largestBody} bytes`,
            ).toJSON(),
          },
          413,
        ),
    }),
  )
  mountStatus(app, deps, ceremonies)
  mountCeremonies(app, deps, ceremonies)
  mountManifest(app, deps, ceremonies, shown)
  mountKeys(app, deps, ceremonies)
  mountUsers(app, deps)
  mountMetrics(app, deps)
  app.doc31('/v1/openapi.json', {
    openapi: '3.1.0',
    info: { title: 'Holdfast coordinator', version: '1' },
  })
  return app
}

/** Serves the API over TLS with the identity's own certificate. */
export async function serveApi(
  options: ServerOptions,
  signal: AbortSignal,
): Promise<RunningServer> {
  const {
    coordinator,
    host,
    port,
    instance,
    clock = systemClock,
    origins = [],
    limits = { all: 1200, open: 240 },
  } = options
  const deps: ServerDeps = {
    coordinator,
    clock,
    limits: new RateLimits(clock, limits),
    origins,
    instance,
    ...(options.report === undefined ? {} : { report: options.report }),
  }
  const app = createApi(deps)
  let agents: Agents | undefined
  const addresses: string[] = [...(options.addresses ?? [])]
  mountNodes(app, { ...deps, agents: () => started(agents), coordinators: addresses })
  const secureContext = () => {
    const { identity, header } = coordinator
    return {
      key: identity.key.export({ type: 'pkcs8', format: 'pem' }),
      cert: identity.certificate,
      minVersion: 'TLSv1.3' as const,
      ...(header === undefined ? {} : { ca: [header.authority] }),
    }
  }
  const server = createAdaptorServer({
    fetch: app.fetch,
    createServer,
    serverOptions: {
      ...secureContext(),
      requestCert: true,
      rejectUnauthorized: false, // browsers and programs have no certificate; agents are checked where they connect
    },
  }) as Server // createServer above is node:https's
  // A claim makes the authority; a restored host gets its cluster's identity back while it serves.
  coordinator.onTrust(() => server.setSecureContext(secureContext()))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  if (addresses.length === 0) addresses.push(`https://${host}:${portOf(server, port)}`)
  const onError = (error: unknown) => options.report?.(error)
  agents = await Agents.start({ coordinator, server, clock, instance, onError })
  coordinator.onTrust(() => agents?.recogniseNodes())
  const duties = startDuties({ agents, store: coordinator.store, clock, onError })
  const stop = async () => {
    await duties[Symbol.asyncDispose]()
    await agents?.[Symbol.asyncDispose]()
    server.closeAllConnections()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  }
  signal.addEventListener('abort', () => void stop(), { once: true })
  return {
    port: portOf(server, port),
    server,
    app,
    [Symbol.asyncDispose]: stop,
  }
}

function portOf(server: Server, asked: number): number {
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : asked
}

/** Agents start right after the server listens; a request in between is asked to come again. */
function started(agents: Agents | undefined): Agents {
  if (agents !== undefined) return agents
  throw coordinatorFault('coordinator.storage_unreachable', 'the coordinator is still starting')
}
