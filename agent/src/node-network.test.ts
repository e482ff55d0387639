import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { run, systemClock } from '@holdfast/base'
import { makeTunnelKey, tunnelPublicKey } from '@holdfast/link'
import type { Peer } from '@holdfast/protocol/documents'
import { NodeNetwork } from './node-network.ts'

test('a name that nobody knows is in the status, and is asked for again', async () => {
  const tag = randomBytes(2).toString('hex')
  const [namespace, name] = [`hfq${tag}`, `hfq${tag}`]
  await run('ip', ['netns', 'add', namespace])
  const stop = new AbortController()
  const waits = Promise.withResolvers<void>()
  let known = false
  const network = NodeNetwork.start({
    tunnel: {
      ...{ name, namespace, kinds: ['wireguard-go'] },
      askName: async () => (known ? '192.0.2.7' : Promise.reject(new Error('nobody has it'))),
    },
    key: makeTunnelKey(),
    port: 51_820,
    address: '10.88.0.1/16',
    onChange: () => undefined,
    clock: {
      ...systemClock,
      sleep: (time, signal) => (known ? systemClock.sleep(time, signal) : waits.promise),
    },
    signal: stop.signal,
  })
  try {
    const peer = (host: number, endpoint: string): Peer => ({
      ...{ node: 'n'.repeat(43), name: 'n', relation: 'ward', identity: '', urls: [] },
      ...{ wireguard: tunnelPublicKey(makeTunnelKey()), address: `10.88.0.${host}`, endpoint },
    })
    await network.use([peer(2, 'moved.example:51820'), peer(3, '192.0.2.8:51820')])
    const asked = ['10.88.0.2', '10.88.0.3', '10.88.0.4', '192.0.2.8']
    assert.deepEqual(
      asked.map((source) => network.isInside(source)),
      [true, true, false, false],
      'a caller is in the tunnel by its address there',
    )
    const applied = async () => {
      const args = ['netns', 'exec', namespace, 'wg', 'show', name, 'endpoints']
      const { stdout } = await run('ip', args, { accept: [0, 1] })
      const found: string[] = stdout.toString().match(/192\.0\.2\.\d:51820|\(none\)/g) ?? []
      return found
    }
    await until('the other peer', async () => ((await applied()).length === 2 ? true : undefined))
    assert.deepEqual((await applied()).sort(), ['(none)', '192.0.2.8:51820'])
    const status = await until('the reason', async () => {
      const now = await network.status()
      return now.networkReason?.includes('moved') ? now : undefined
    })
    assert.match(status.networkReason ?? '', /none to moved\.example:51820: nobody has it$/)

    known = true
    waits.resolve()
    await until('the name', async () => (await applied()).includes('192.0.2.7:51820') || undefined)
    await until('no such reason', async () => {
      const { networkReason = '' } = await network.status()
      return networkReason.includes('moved') ? undefined : true
    })
  } finally {
    stop.abort()
    await network[Symbol.asyncDispose]()
    await run('ip', ['netns', 'delete', namespace])
  }
})

test('that somebody begins to answer in the tunnel is told when it is so, not only asked for', async () => {
  const tag = randomBytes(2).toString('hex')
  const namespace = `hfa${tag}`
  await run('ip', ['netns', 'add', namespace])
  const stop = new AbortController()
  const told: string[] = []
  const keys = [makeTunnelKey(), makeTunnelKey()]
  const ports = [51_821, 51_822]
  const peerOf = (host: 0 | 1): Peer => ({
    ...{ node: 'n'.repeat(43), name: 'n', relation: 'ward', identity: '', urls: [] },
    wireguard: tunnelPublicKey(keys[host] ?? makeTunnelKey()),
    ...{ address: `10.88.0.${host + 1}`, endpoint: `127.0.0.1:${ports[host]}` },
  })
  const started = (host: 0 | 1, onChange: () => void) =>
    NodeNetwork.start({
      tunnel: { name: `hfa${tag}${host}`, namespace, kinds: ['wireguard-go'] },
      key: keys[host] ?? makeTunnelKey(),
      ...{ port: ports[host] ?? 0, address: `10.88.0.${host + 1}/16`, onChange },
      ...{ clock: systemClock, signal: stop.signal },
    })
  const one = started(0, () => void one.status().then(({ network }) => told.push(network)))
  try {
    await run('ip', ['-n', namespace, 'link', 'set', 'lo', 'up'])
    await one.use([peerOf(1)])
    await until('a tunnel', async () => (told.length > 0 ? true : undefined))
    assert.deepEqual([...new Set(told)], ['mutual-tls'], 'nobody answers')
    await using two = started(1, () => undefined)
    await two.use([peerOf(0)])
    await until('the answer', async () => (told.at(-1) === 'wireguard-go' ? true : undefined))
  } finally {
    stop.abort()
    await one[Symbol.asyncDispose]()
    await run('ip', ['netns', 'delete', namespace])
  }
})

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  for (let tried = 0; tried < 3000; tried += 1) {
    const found = await look()
    if (found !== undefined) return found
    await systemClock.sleep(20)
  }
  throw new Error(`${what} did not come in time`)
}
