import { parseArgs } from 'node:util'
import { isFault } from '@holdfast/base'
import { createLog } from '@holdfast/base/log'
import { isCurveName } from '@holdfast/crypto'
import { serve } from './serve.ts'
import { processChannel, runWorker } from './worker.ts'

// A key server process of its own, for tests and benchmarks; operators use `holdfast keyserver serve`.
// Prints one line of JSON when it listens.

const workerWord = 'worker'

function options() {
  const { values } = parseArgs({
    options: {
      directory: { type: 'string' },
      host: { type: 'string', default: '127.0.0.1' },
      port: { type: 'string', default: '0' },
      workers: { type: 'string', default: '0' },
      admin: { type: 'string' },
      audit: { type: 'string', default: 'none' },
      init: { type: 'string' },
      rate: { type: 'string' },
      log: { type: 'string', default: 'info' },
    },
  })
  const { init } = values
  return {
    directory: values.directory ?? '.',
    host: values.host,
    port: Number(values.port),
    workers: Number(values.workers),
    workerProgram: { program: process.argv[1] ?? '', args: [workerWord] },
    audit: values.audit,
    ...(values.admin === undefined ? {} : { adminSocket: values.admin }),
    ...(init !== undefined && isCurveName(init) ? { initialise: { curve: init } } : {}),
    ...(values.rate === undefined ? {} : { limits: { rate: Number(values.rate) } }),
    log: createLog('keyserver', values.log, { write: (line) => process.stderr.write(line) }),
  }
}

async function main(): Promise<void> {
  // Whoever read the log has gone: what runs goes on.
  process.stderr.on('error', () => undefined)
  if (process.argv[2] === workerWord) {
    await runWorker(processChannel())
    process.disconnect?.()
    return
  }
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  const server = await serve(options(), stop.signal)
  const { port, adminSocket } = server
  process.stdout.write(`${JSON.stringify({ ready: true, port, adminSocket, pid: process.pid })}\n`)
}

try {
  await main()
} catch (error) {
  process.stderr.write(`${JSON.stringify(isFault(error) ? error : { message: String(error) })}\n`)
  process.exitCode = 1
}
