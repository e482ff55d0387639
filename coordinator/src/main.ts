import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ensureDirectory, isFault, messageOf, readBounded, systemClock } from '@holdfast/base'
import { createLog } from '@holdfast/base/log'
import { createPins } from '@holdfast/seal'
import type { CeremonyDeps } from './ceremonies.ts'
import { prepareClaim } from './claim.ts'
import { Coordinator } from './coordinator.ts'
import { filePin } from './file-pin.ts'
import { keepResuming, resume } from './resume.ts'
import { serveApi } from './server.ts'
import type { StoreLocation } from './store.ts'

// A coordinator process of its own. Prints one line of JSON when it listens; stops on SIGTERM.
// The addresses of PostgreSQL come from a file, one a line, because they may hold a password.

function options() {
  const { values } = parseArgs({
    options: {
      directory: { type: 'string' },
      host: { type: 'string', default: '127.0.0.1' },
      port: { type: 'string', default: '0' },
      instance: { type: 'string', default: `${process.pid}` },
      'postgresql-file': { type: 'string' },
      origin: { type: 'string', multiple: true, default: [] },
      refresh: { type: 'string', default: '2000' },
      rate: { type: 'string' },
      log: { type: 'string', default: 'info' },
      /** Makes the one-time token with which somebody at this machine may give an old state up. */
      'console-token': { type: 'boolean', default: false },
    },
  })
  return { ...values, directory: values.directory ?? '.' }
}

async function locate(directory: string, file: string | undefined): Promise<StoreLocation> {
  if (file === undefined) return { engine: 'sqlite', path: join(directory, 'state.db') }
  const text = (await readBounded(file, 65_536)).toString('utf8')
  const url = text.split('\n').filter((line) => line.trim() !== '')
  return { engine: 'postgresql', url }
}

async function main(): Promise<void> {
  const values = options()
  const { directory, instance, host } = values
  await ensureDirectory(directory)
  if (values['console-token']) {
    process.stdout.write(`${JSON.stringify({ token: await prepareClaim(directory) })}\n`)
    return
  }
  const log = createLog('coordinator', values.log, { write: (line) => process.stderr.write(line) })
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  const coordinator = await Coordinator.start({
    directory,
    store: await locate(directory, values['postgresql-file']),
    pins: createPins({ extra: [filePin()] }),
  })
  const clock = systemClock
  const deps: CeremonyDeps = {
    store: coordinator.store,
    clock,
    cluster: () => coordinator.header?.cluster ?? '',
  }
  const report = (event: object) => log.info(event, 'resumed')
  for (const event of await resume(coordinator, deps)) report(event)
  const rate = values.rate === undefined ? undefined : Number(values.rate)
  const server = await serveApi(
    {
      coordinator,
      host,
      port: Number(values.port),
      instance,
      origins: values.origin,
      report: (error) => log.error({ err: error }, 'a request failed'),
      ...(rate === undefined ? {} : { limits: { all: rate, open: rate } }),
    },
    stop.signal,
  )
  const { port } = server
  const { state, reason, identity } = coordinator
  process.stdout.write(
    `${JSON.stringify({ ready: true, port, identity: identity.digest, state, reason, pid: process.pid })}\n`,
  )
  const interval = Number(values.refresh)
  await keepResuming(coordinator, deps, { clock, interval, report }, stop.signal)
  await server[Symbol.asyncDispose]()
  await coordinator[Symbol.asyncDispose]()
}

try {
  await main()
} catch (error) {
  process.stderr.write(
    `${JSON.stringify(isFault(error) ? error : { message: messageOf(error) })}\n`,
  )
  process.exitCode = 1
}
