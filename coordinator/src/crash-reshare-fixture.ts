import { subscribe } from 'node:diagnostics_channel'
import { readFile } from 'node:fs/promises'
import { systemClock } from '@holdfast/base'
import { enrolmentDeps } from './enrolment-deps.ts'
import { type EnrolmentOrder, enrolNode } from './enrolment-driver.ts'
import { locateStore, runService } from './service.ts'

// A coordinator process that ends itself with SIGKILL at its N-th durable write, or moment just before
// or after a commit. With an order it enrols a node, and counts from there:
//
//   node crash-reshare-fixture.ts DIRECTORY N [ORDER.json]

async function main(directory: string, at: number, orderFile: string): Promise<void> {
  let counts = orderFile === ''
  let effects = 0
  subscribe('holdfast:effect', () => {
    if (counts) effects += 1
    if (counts && effects === at) process.kill(process.pid, 'SIGKILL')
  })
  const stop = new AbortController()
  process.once('SIGTERM', () => stop.abort())
  const report = (error: unknown) => process.stderr.write(`${String(error)}\n`)
  await runService(
    {
      ...{ directory, port: 0, host: '127.0.0.1', instance: 'one', onResume: () => undefined },
      store: await locateStore(directory, 'sqlite'),
      report,
    },
    async ({ port, coordinator }) => {
      process.stdout.write(`${JSON.stringify({ ready: true, port })}\n`)
      if (orderFile === '') return
      const order = JSON.parse(await readFile(orderFile, 'utf8')) as EnrolmentOrder // the test wrote it
      counts = true
      const deps = enrolmentDeps(coordinator, systemClock, [`https://127.0.0.1:${port}`])
      await enrolNode(deps, order, 'user:ada')
    },
    stop.signal,
  )
}

if (import.meta.main) {
  const [, , directory = '', at = '0', orderFile = ''] = process.argv
  await main(directory, Number(at), orderFile)
}
