import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { test } from 'node:test'
import { type Effect, run, startProgram } from '@holdfast/base'
import type { Peer } from '@holdfast/protocol/documents'
import { startTunnel, type Tunnel } from './tunnel.ts'
import {
  makeTunnelKey,
  peersOf,
  readTunnelKey,
  renderTunnel,
  type TunnelPeer,
  tunnelPrivateKey,
  tunnelPublicKey,
} from './wireguard.ts'

// Real tunnels: a network namespace per machine, joined by a bridge, wireguard-go in each of them.

interface Machine {
  namespace: string
  outside: string
  inside: string
  key: ReturnType<typeof makeTunnelKey>
  tunnel: Tunnel
}

const ip = (...args: string[]) => run('ip', args)

async function network(count: number) {
  const tag = randomBytes(4).toString('hex') // a name of an interface has 15 characters at most
  const bridge = `hfb${tag}`
  const machines: Machine[] = []
  const dispose = async () => {
    for (const { tunnel } of machines) await tunnel[Symbol.asyncDispose]()
    for (let index = 1; index <= count; index += 1)
      await run('ip', ['netns', 'delete', `hf${tag}${index}`], { accept: [0, 1] })
    await run('ip', ['link', 'delete', 'dev', bridge], { accept: [0, 1] })
  }
  try {
    await ip('link', 'add', bridge, 'type', 'bridge')
    await ip('link', 'set', bridge, 'up')
    for (let index = 1; index <= count; index += 1) {
      const namespace = `hf${tag}${index}`
      await ip('netns', 'add', namespace)
      await ip(
        'link',
        'add',
        `v${tag}${index}`,
        'type',
        'veth',
        'peer',
        'name',
        'eth0',
        'netns',
        namespace,
      )
      await ip('link', 'set', `v${tag}${index}`, 'master', bridge, 'up')
      await ip('-n', namespace, 'address', 'add', `198.51.100.${index}/24`, 'dev', 'eth0')
      await ip('-n', namespace, 'link', 'set', 'eth0', 'up')
      await ip('-n', namespace, 'link', 'set', 'lo', 'up')
      const inside = `10.88.${index}.7`
      const tunnel = await startTunnel({
        name: `wg${tag}${index}`,
        address: `${inside}/16`,
        namespace,
        kinds: ['wireguard-go'],
      })
      assert.equal(tunnel.kind, 'wireguard-go')
      if (!('apply' in tunnel)) throw new Error('no tunnel')
      const outside = `198.51.100.${index}`
      machines.push({ namespace, outside, inside, key: makeTunnelKey(), tunnel })
    }
  } catch (error) {
    await dispose()
    throw error
  }
  return { machines, [Symbol.asyncDispose]: dispose }
}

const asPeer = ({ key, inside, outside }: Machine): TunnelPeer => ({
  publicKey: tunnelPublicKey(key),
  allowed: [`${inside}/32`],
  endpoint: `${outside}:51820`,
  keepalive: 25,
})

async function peerWith(machine: Machine, peers: readonly Machine[]): Promise<void> {
  await machine.tunnel.apply({ key: machine.key, port: 51_820, peers: peers.map(asPeer) })
}

/** An echo server on a machine's address in the tunnel. */
async function echo({ namespace, inside }: Machine) {
  const listen = `TCP-LISTEN:7000,bind=${inside},fork,reuseaddr`
  const args = [
    'netns',
    'exec',
    namespace,
    'sh',
    '-c',
    `exec 2>&1; exec socat -d -d ${listen} EXEC:cat`,
  ]
  return (await startProgram('ip', args, (line) => line.includes('listening on'))).running
}

async function reaches(from: Machine, to: Machine, seconds: number): Promise<boolean> {
  const target = `TCP:${to.inside}:7000,connect-timeout=${seconds}`
  const { code, stdout } = await run(
    'ip',
    ['netns', 'exec', from.namespace, 'socat', '-t', '30', '-', target],
    { input: 'through the tunnel', accept: [0, 1] },
  )
  return code === 0 && stdout.toString('utf8') === 'through the tunnel'
}

test('machines reach their peers through real tunnels, and nobody else does', async () => {
  await using here = await network(3)
  const [guardian, ward, stranger] = here.machines
  assert.ok(guardian && ward && stranger)
  const ran: string[] = []
  const listen = (effect: unknown) => ran.push((effect as Effect).what) // the channel's own type
  subscribe('holdfast:effect', listen)
  await peerWith(guardian, [ward])
  await peerWith(ward, [guardian])
  await peerWith(stranger, [guardian])
  unsubscribe('holdfast:effect', listen)
  await using _server = await echo(guardian)

  assert.equal(await reaches(ward, guardian, 60), true)
  assert.equal(await reaches(stranger, guardian, 1), false)
  const [status] = await guardian.tunnel.status()
  assert.equal(status?.publicKey, tunnelPublicKey(ward.key))
  assert.ok(status.handshakeAt !== undefined && status.receivedBytes > 18)

  // The list changes: the stranger becomes a ward, the old ward is no longer one.
  await peerWith(guardian, [stranger])
  assert.equal(await reaches(stranger, guardian, 60), true)
  assert.equal(await reaches(ward, guardian, 1), false)

  assert.ok(ran.some((what) => what.includes('wg syncconf')))
  for (const { key } of here.machines) {
    using secret = tunnelPrivateKey(key)
    const text = secret.reveal().toString()
    assert.equal(
      ran.some((what) => what.includes(text)),
      false,
      'a key stood in the arguments',
    )
  }
})

test("one peer's useless address takes nobody else's tunnel", async () => {
  await using here = await network(2)
  const [guardian, ward] = here.machines
  assert.ok(guardian && ward)
  // A label of more than 63 letters: no resolver has to be asked to know that there is none.
  const [underscore, unknown] = ['node_1.example:51820', `${'x'.repeat(64)}.example:51820`]
  const junk = [underscore, unknown].map((endpoint, index) => ({
    publicKey: tunnelPublicKey(makeTunnelKey()),
    allowed: [`10.88.99.${index}/32`],
    endpoint,
  }))
  const peers = [...junk, asPeer(guardian)]
  const left = await ward.tunnel.apply({ key: ward.key, port: 51_820, peers })
  assert.deepEqual(
    left.map((text) => text.split(': ')[0]),
    [`to ${underscore}`, `to ${unknown}`],
  )
  await peerWith(guardian, [ward])
  await using _server = await echo(guardian)
  assert.equal(await reaches(ward, guardian, 60), true)
  assert.equal((await ward.tunnel.status()).length, 3, 'who speaks first is heard all the same')
})

test('a tunnel that a killed process left behind is replaced, and a dead one says so', async () => {
  await using here = await network(1)
  const [machine] = here.machines
  assert.ok(machine)
  const name = (
    await run('ip', ['-n', machine.namespace, '-br', 'link', 'show', 'type', 'tun'])
  ).stdout
    .toString()
    .split(' ')[0]
  assert.ok(name)
  const again = await startTunnel({
    name,
    address: `${machine.inside}/16`,
    namespace: machine.namespace,
    kinds: ['wireguard-go'],
  })
  assert.match(await machine.tunnel.lost, /ended/)
  assert.equal(again.kind, 'wireguard-go')
  if ('apply' in again) await again[Symbol.asyncDispose]()
})

test('where nothing makes tunnels, mutual TLS is named with the reasons', async () => {
  const none = await startTunnel({ name: 'holdfast-name-too-long', address: '10.88.0.2/16' })
  assert.equal(none.kind, 'mutual-tls')
  assert.ok('reasons' in none && none.reasons.length === 2)
})

test('keys are those that wg makes and reads', async () => {
  const key = makeTunnelKey()
  using secret = tunnelPrivateKey(key)
  const shown = await run('wg', ['pubkey'], { input: secret })
  assert.equal(shown.stdout.toString().trim(), tunnelPublicKey(key))
  assert.equal(tunnelPublicKey(readTunnelKey(secret)), tunnelPublicKey(key))
})

test("one peer's useless or borrowed key takes nobody else's tunnel", () => {
  const [victim, other] = [makeTunnelKey(), makeTunnelKey()].map(tunnelPublicKey)
  assert.ok(victim !== undefined && other !== undefined)
  const peer = (wireguard: string, host: number): Peer => ({
    ...{ node: 'n'.repeat(43), name: 'n', relation: 'ward', identity: '', wireguard },
    ...{ address: `10.88.0.${host}`, endpoint: '192.0.2.1:51820', urls: [] },
  })
  const junk = [peer('', 2), peer('junk', 3), peer(`${victim}\n[Peer]`, 4)]
  const listed = peersOf([...junk, peer(other, 5), peer(victim, 6)])
  assert.deepEqual(
    listed.map(({ publicKey, allowed }) => [publicKey, ...allowed]),
    [
      [other, '10.88.0.5/32'],
      [victim, '10.88.0.6/32'],
    ],
  )
  const borrowed = peersOf([peer(victim, 6), peer(other, 5), peer(victim, 7)])
  assert.deepEqual(
    borrowed.map(({ publicKey }) => publicKey),
    [other],
  )
})

test('nothing in a list of peers can start a line of its own', () => {
  const publicKey = tunnelPublicKey(makeTunnelKey())
  const bad: TunnelPeer[] = [
    { publicKey: `${publicKey}\n[Peer]`, allowed: [] },
    { publicKey, allowed: ['10.0.0.0/8\nEndpoint = x'] },
    { publicKey, allowed: [], endpoint: 'host:1\nAllowedIPs = 0.0.0.0/0' },
  ]
  for (const peer of bad)
    assert.throws(() => renderTunnel({ key: makeTunnelKey(), port: 1, peers: [peer] }), {
      code: 'link.address_invalid',
    })
})
