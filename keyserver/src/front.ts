import { codeOf, messageOf } from '@holdfast/base'
import type { Log } from '@holdfast/base/log'
import { Engine, type Health } from './engine.ts'
import { EventBatcher, type Gauges } from './events.ts'
import { keyserverFault } from './faults.ts'
import type { Limits } from './limits.ts'
import { Listener, type RecoveryEvent } from './listener.ts'

/** What a listening process needs to know; crosses to a worker process as JSON. */
export interface FrontSettings {
  readonly directory: string
  readonly host: string
  readonly port: number
  readonly limits: Limits
}

export interface FrontDeps {
  readonly log: Log
  onEvents(events: RecoveryEvent[]): void
  metrics(): Promise<string>
  /** A self-test failed; the process should be replaced. */
  onFaulty(): void
}

/** The listening side: one process of its own, or a pool of them. */
export interface Front extends AsyncDisposable {
  readonly port: number
  readonly workers: number
  readonly restarts: number
  health(): Health
  gauges(): Gauges
  /** Reads the key directory again; resolves when every process answers from the new state. */
  reload(): Promise<void>
  /** Resolves when the events of every recovery answered before the call have been handed on. */
  collect(): Promise<void>
}

const backlog = 4096

/**
 * Loads the directory and listens in this process.
 * @throws Fault keyserver.listen_failed and those of Engine.start
 */
export async function startFront(settings: FrontSettings, deps: FrontDeps): Promise<Front> {
  const engine = await Engine.start(settings.directory, deps.log, deps.onFaulty)
  const batcher = new EventBatcher((events) => deps.onEvents(events))
  const listener = new Listener({
    limits: settings.limits,
    snapshot: () => engine.snapshot,
    onRecovery: (event) => batcher.add(event),
    health: () => {
      const health = engine.health()
      return { ok: health.status !== 'failed', body: `${JSON.stringify(health)}\n` }
    },
    metrics: () => {
      batcher.flush()
      return deps.metrics()
    },
    onError: (error) => deps.log.error({ error: messageOf(error) }, 'a request failed'),
  })
  try {
    await listen(listener, settings)
  } catch (error) {
    engine[Symbol.dispose]()
    throw error
  }
  const address = listener.server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : settings.port,
    workers: 1,
    restarts: 0,
    health: () => engine.health(),
    gauges: () => ({ ...listener.counts, connections: listener.connections }),
    reload: () => engine.reload(),
    collect: async () => batcher.flush(),
    [Symbol.asyncDispose]: async () => {
      await listener[Symbol.asyncDispose]()
      batcher[Symbol.dispose]()
      engine[Symbol.dispose]()
    },
  }
}

function listen({ server }: Listener, { host, port }: FrontSettings): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const reason = codeOf(cause) === 'EADDRINUSE' ? 'it is in use' : messageOf(cause)
      reject(
        keyserverFault('keyserver.listen_failed', `cannot listen on ${host}:${port}: ${reason}`, {
          cause,
          hint: 'choose another --port, or stop what listens there',
        }),
      )
    })
    server.listen({ host, port, backlog }, () => {
      server.removeAllListeners('error')
      server.on('error', () => undefined) // accept errors (EMFILE) pass; the next connection retries
      resolve()
    })
  })
}
