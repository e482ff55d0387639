import { subscribe } from 'node:diagnostics_channel'
import { locateStore, runService } from './service.ts'

// A coordinator process that ends itself with SIGKILL at its N-th durable write, or moment just before
// or after a commit:
//
//   node crash-reshare-fixture.ts DIRECTORY N

async function main(directory: string, at: number): Promise<void> {
  let effects = 0
  subscribe('holdfast:effect', () => {
    effects += 1
    if (effects === at) process.kill(process.pid, 'SIGKILL')
  })
  const stop = new AbortController()
  process.once('SIGTERM', () => stop.abort())
  await runService(
    {
      ...{ directory, port: 0, host: '127.0.0.1', instance: 'one', onResume: () => undefined },
      store: await locateStore(directory, 'sqlite'),
      report: (error) => process.stderr.write(`${String(error)}\n`),
    },
    async (service) => {
      process.stdout.write(`${JSON.stringify({ ready: true, port: service.port })}\n`)
    },
    stop.signal,
  )
}

if (import.meta.main) {
  const [, , directory = '', at = '0'] = process.argv
  await main(directory, Number(at))
}
