import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EndpointNames } from './tunnel-endpoints.ts'
import { makeTunnelKey, type TunnelPeer, tunnelPublicKey } from './wireguard.ts'

const peer = (endpoint?: string): TunnelPeer => ({
  publicKey: tunnelPublicKey(makeTunnelKey()),
  allowed: ['10.88.0.2/32'],
  ...(endpoint === undefined ? {} : { endpoint }),
})

const endpointsOf = (peers: readonly TunnelPeer[]) => peers.map(({ endpoint }) => endpoint)

test('addresses stay, names become addresses, and neither is left out', async () => {
  const answers: Record<string, string> = {
    'four.example': '192.0.2.4',
    'six.example': '2001:db8::6',
  }
  const names = new EndpointNames(async (name) => answers[name] ?? assert.fail(name))
  const given = ['192.0.2.1:51820', '[2001:db8::1]:7', 'four.example:1', 'six.example:65535']
  const { peers, left } = await names.resolve([peer(), ...given.map(peer)])
  assert.deepEqual(endpointsOf(peers), [
    undefined,
    '192.0.2.1:51820',
    '[2001:db8::1]:7',
    '192.0.2.4:1',
    '[2001:db8::6]:65535',
  ])
  assert.deepEqual(left, [])
  const own = await new EndpointNames().resolve([peer('localhost:51820')])
  assert.match(own.peers[0]?.endpoint ?? '', /^(127\.0\.0\.1|\[::1\]):51820$/)
})

test('what is no endpoint is left out and named, and asks nobody', async () => {
  const asked: string[] = []
  const names = new EndpointNames(async (name) => {
    asked.push(name)
    return '192.0.2.1'
  })
  const junk = [
    'node_1.example:51820',
    'a:1\nAllowedIPs = 0.0.0.0/0',
    '[::::]:1',
    'a.example:0',
    'a.example:65536',
    'a.example',
    '',
    `${'a.'.repeat(130)}:1`,
  ]
  const { peers, left } = await names.resolve([...junk, '192.0.2.9:51820'].map(peer))
  assert.deepEqual(endpointsOf(peers), [...junk.map(() => undefined), '192.0.2.9:51820'])
  assert.equal(left.length, junk.length)
  assert.ok(left.includes('to node_1.example:51820: this is not a host and a port'))
  assert.deepEqual(asked, [])
})

test('a silent name server keeps nobody waiting, and is asked once for a name', async () => {
  const asked: string[] = []
  const answer = Promise.withResolvers<string>()
  const names = new EndpointNames((name) => {
    asked.push(name)
    return answer.promise
  }, 20)
  for (let times = 0; times < 3; times += 1) {
    const { peers, left } = await names.resolve([peer('slow.example:1'), peer('192.0.2.9:1')])
    assert.deepEqual(endpointsOf(peers), [undefined, '192.0.2.9:1'])
    assert.deepEqual(left, ['to slow.example:1: its name has had no answer yet'])
  }
  assert.deepEqual(asked, ['slow.example'])
  answer.resolve('192.0.2.1')
  await answer.promise
  const later = await names.resolve([peer('slow.example:1')])
  assert.deepEqual(endpointsOf(later.peers), ['192.0.2.1:1'])
})
