import { parseArgs } from 'node:util'
import { ensureDirectory, isFault, messageOf } from '@holdfast/base'
import { createLog } from '@holdfast/base/log'
import { readSinkFile } from './audit-sink.ts'
import { prepareClaim } from './claim.ts'
import { locateStore, runService } from './service.ts'

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
      /** As `holdfast coordinator serve` has it: sqlite, or a file with PostgreSQL's addresses. */
      store: { type: 'string', default: 'sqlite' },
      /** `https://host:port` of every instance, as nodes find them. */
      address: { type: 'string', multiple: true, default: [] },
      'audit-sink': { type: 'string' },
      tpm: { type: 'string', default: 'auto' },
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

async function main(): Promise<void> {
  // Whoever read the log has gone: what runs goes on.
  process.stderr.on('error', () => undefined)
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
  const sink = values['audit-sink']
  const rate = values.rate === undefined ? undefined : Number(values.rate)
  await runService(
    {
      directory,
      store: await locateStore(directory, values['postgresql-file'] ?? values.store),
      host,
      port: Number(values.port),
      instance,
      origins: values.origin,
      tpm: values.tpm,
      refresh: Number(values.refresh),
      report: (error) => log.error({ err: error }, 'a request failed'),
      onResume: (event) => log.info(event, 'resumed'),
      ...(values.address.length === 0 ? {} : { addresses: values.address }),
      ...(sink === undefined ? {} : { sink: await readSinkFile(sink) }),
      ...(rate === undefined ? {} : { limits: { all: rate, open: rate, logins: rate } }),
    },
    async ({ port, coordinator }) => {
      const { state, reason, identity } = coordinator
      const ready = { ready: true, port, identity: identity.digest, state, reason }
      process.stdout.write(`${JSON.stringify({ ...ready, pid: process.pid })}\n`)
    },
    stop.signal,
  )
}

try {
  await main()
} catch (error) {
  process.stderr.write(
    `${JSON.stringify(isFault(error) ? error : { message: messageOf(error) })}\n`,
  )
  process.exitCode = 1
}
