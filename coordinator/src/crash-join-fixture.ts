import { readFile } from 'node:fs/promises'
import { isFault } from '@holdfast/base'
import { ApiClient } from '@holdfast/link/api-client'
import { statusRoutes } from '@holdfast/protocol'
import { joinCluster } from './join.ts'
import { killAt } from './kill-at-effect.ts'
import { locateStore, runService } from './service.ts'

// The two sides of a join, each as a process that ends itself with SIGKILL at its N-th effect: a durable
// write, or the moment just before or after a commit. The giving instance counts from where it uses the
// token up.
//
//   node crash-join-fixture.ts give DIRECTORY STORE N
//   node crash-join-fixture.ts take DIRECTORY URL PIN TOKENFILE N

async function give(directory: string, store: string, at: number): Promise<void> {
  killAt(at, ({ kind, what }) => kind === 'remove' && what.endsWith('/join-token'))
  const stop = new AbortController()
  process.once('SIGTERM', () => stop.abort())
  await runService(
    {
      ...{ directory, port: 0, host: '127.0.0.1', instance: 'one', onResume: () => undefined },
      store: await locateStore(directory, store),
      report: (error) => process.stderr.write(`${String(error)}\n`),
    },
    async ({ port, coordinator: { identity, state } }) => {
      const ready = { ready: true, port, identity: identity.digest, state }
      process.stdout.write(`${JSON.stringify(ready)}\n`)
    },
    stop.signal,
  )
}

/** As `holdfast coordinator join` does. Prints what came of it. */
async function take(place: { directory: string; url: string; pinned: string }, tokenFile: string) {
  const { directory, url, pinned } = place
  using client = new ApiClient({ url, identity: pinned })
  const token = (await readFile(tokenFile, 'utf8')).trim()
  try {
    const ask = async (key: string) =>
      (await client.call(statusRoutes.join, { body: { token, key, name: 'two' } })).sealed
    const { cluster } = await joinCluster({ directory, pinned, ask })
    process.stdout.write(JSON.stringify({ cluster }))
  } catch (error) {
    if (!isFault(error)) throw error
    const { code, message, hint } = error
    process.stdout.write(JSON.stringify({ code, message, hint }))
  }
}

if (import.meta.main) {
  const [, , side, directory = '', ...words] = process.argv
  if (side === 'give') {
    const [store = '', at = '0'] = words
    await give(directory, store, Number(at))
  } else {
    const [url = '', pinned = '', tokenFile = '', at = '0'] = words
    killAt(Number(at))
    await take({ directory, url, pinned }, tokenFile)
  }
}
