import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { Secret } from '@holdfast/base'
import { exchange, pinnedTls } from '@holdfast/link'
import { createPins, open, seal } from '@holdfast/seal'
import { peerFleet, peerPolicy, type TestGuardian } from './peer-fleet.ts'
import { peerPin } from './peer-pin.ts'

// Bare TCP connections, which cost a stranger nothing, against one guardian on real sockets.

const portOf = ({ url }: TestGuardian): number => Number(new URL(url).port)

/** Connections from 127.0.0.1 that say nothing. */
async function flood(guardian: TestGuardian, count: number) {
  const sockets: Socket[] = []
  for (let index = 0; index < count; index += 1)
    sockets.push(connect(portOf(guardian), '127.0.0.1').on('error', () => undefined))
  await Promise.all(
    sockets.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')])),
  )
  for (const socket of sockets) socket.resume()
  return {
    left: () => sockets.filter((socket) => !socket.closed).length,
    ended: () => Promise.all(sockets.map((each) => each.closed || once(each, 'close'))),
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy()
    },
  }
}

test('600 connections that say nothing keep no ward out, not even one behind the same address', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const ward = await fleet.node()
  const pins = createPins({ extra: [peerPin(ward)] })
  using plaintext = Secret.copy('the volume passphrase')
  const sealed = await seal(pins, await peerPolicy(ward, [guardian], { threshold: 1 }), plaintext)
  using stranger = await flood(guardian, 600)
  for (let turn = 0; turn < 3; turn += 1) {
    using opened = await open(pins, sealed, { timeout: 60_000 })
    assert.equal(opened.reveal().toString('utf8'), 'the volume passphrase')
  }
  const { own, authority } = ward
  const tls = pinnedTls(guardian.identity.node, { own, authority, from: '127.0.0.2' })
  const { status } = await exchange(`${guardian.url}/peer/nonce`, { method: 'GET', tls })
  tls.destroy()
  assert.equal(status, 200)
  assert.ok(stranger.left() <= 256, `${stranger.left()} of one address are still there`)
  await stranger.ended()
})

test("a ward's connection that stands is not ended by those that have proven nothing", async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { own, authority } = await fleet.node()
  const key = own.key.export({ type: 'pkcs8', format: 'pem' })
  const socket = connectTls({
    ...{ port: portOf(guardian), host: '127.0.0.1', rejectUnauthorized: false },
    ...{ key, cert: own.certificate, ca: authority },
  })
  await once(socket, 'secureConnect')
  const closed = new AbortController()
  socket.once('close', () => closed.abort())
  let received = ''
  socket.on('data', (data) => {
    received += data
  })
  const ask = async (path: string) => {
    received = ''
    socket.write(`GET ${path} HTTP/1.1\r\nhost: guardian\r\n\r\n`)
    while (!received.endsWith('\r\n0\r\n\r\n')) await once(socket, 'data', closed)
    return received.split('\r\n')[0]
  }
  assert.equal(await ask('/peer/nonce'), 'HTTP/1.1 200 OK')
  let isFlooded = false
  const flooding = flood(guardian, 600).finally(() => {
    isFlooded = true
  })
  // Asked all the time: one that says nothing for seconds is ended for that.
  while (!isFlooded) assert.equal(await ask('/nothing'), 'HTTP/1.1 400 Bad Request')
  using _stranger = await flooding
  assert.equal(await ask('/peer/nonce'), 'HTTP/1.1 200 OK')
  socket.destroy()
})

test('one node has only so many connections', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { own } = await fleet.node()
  const key = own.key.export({ type: 'pkcs8', format: 'pem' })
  const sockets = Array.from({ length: 44 }, () =>
    connectTls({
      ...{ port: portOf(guardian), host: '127.0.0.1', rejectUnauthorized: false },
      ...{ key, cert: own.certificate },
    }).on('error', () => undefined),
  )
  // Who was let in and then asks nothing is told so before it is let go.
  const said = new Set<object>()
  for (const socket of sockets) socket.on('data', () => said.add(socket))
  const refused = Promise.withResolvers<void>()
  let turnedAway = 0
  for (const socket of sockets)
    socket.resume().once('close', () => {
      if (said.has(socket)) return
      turnedAway += 1
      if (turnedAway === 12) refused.resolve()
    })
  await refused.promise
  const other = await fleet.node()
  const tls = pinnedTls(guardian.identity.node, { own: other.own, authority: other.authority })
  const { status } = await exchange(`${guardian.url}/peer/nonce`, { method: 'GET', tls })
  assert.equal(status, 200)
  assert.equal(turnedAway, 12)
  tls.destroy()
  for (const socket of sockets) socket.destroy()
})
