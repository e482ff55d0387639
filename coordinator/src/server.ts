import { createServer, type Server } from 'node:https'
import { type Clock, Fault, systemClock } from '@holdfast/base'
import { createAdaptorServer } from '@hono/node-server'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { bodyLimit } from 'hono/body-limit'
import { secureHeaders } from 'hono/secure-headers'
import type { CeremonyDeps } from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
import { mountMetrics } from './metrics.ts'
import { createApp, type ServerDeps } from './mount.ts'
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
            error: new Fault(
              'api.body_too_large',
              'invalid',
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
  const app = createApi({
    coordinator,
    clock,
    limits: new RateLimits(clock, limits),
    origins,
    instance,
    ...(options.report === undefined ? {} : { report: options.report }),
  })
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
  const stop = async () => {
    server.closeAllConnections()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  }
  signal.addEventListener('abort', () => void stop(), { once: true })
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    server,
    app,
    [Symbol.asyncDispose]: stop,
  }
}
