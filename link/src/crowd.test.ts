import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import { connect as connectPlain, type Socket } from 'node:net'
import { test } from 'node:test'
import { connect, type TLSSocket } from 'node:tls'
import { alwaysValid, selfSigned } from './certificate.ts'
import { boundUnsecured, type CrowdOptions } from './crowd.ts'
import { openListener } from './listener.ts'
import { sourceOf } from './source-of.ts'
import { serverTls } from './tls.ts'

async function crowded(options: CrowdOptions & { within?: number }) {
  const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const own = { key, certificate: await selfSigned(key, 'x', alwaysValid) }
  const server = createServer(serverTls(own))
  server.on('tlsClientError', () => undefined)
  server.on('secureConnection', (socket: TLSSocket) => socket.on('error', () => undefined))
  boundUnsecured(server, { within: 60_000, ...options })
  const listener = await openListener(server, { port: 0, host: '127.0.0.1' })
  const { port } = listener
  /** Connects and says nothing; told when the server has taken it. */
  const mute = async (localAddress = '127.0.0.1'): Promise<Socket> => {
    const taken = once(server, 'connection')
    const socket = connectPlain({ port, host: '127.0.0.1', localAddress })
    socket.on('error', () => undefined)
    await Promise.all([once(socket, 'connect'), taken])
    socket.resume()
    return socket
  }
  const shaken = async (): Promise<TLSSocket> => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
    await Promise.all([once(socket, 'secureConnect'), once(server, 'secureConnection')])
    socket.on('error', () => undefined).resume()
    return socket
  }
  return { mute, shaken, [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose]() }
}

const closed = async (socket: Socket) => {
  if (!socket.closed) await once(socket, 'close')
}

/** One after the other, so that it is known which is the oldest. */
async function mutes(count: number, mute: () => Promise<Socket>): Promise<Socket[]> {
  const sockets: Socket[] = []
  for (let index = 0; index < count; index += 1) sockets.push(await mute())
  return sockets
}

test('of those that say nothing the oldest of one address give way, and nobody is turned away', async () => {
  await using here = await crowded({ most: 100, each: 4 })
  const silent = await mutes(10, here.mute)
  await Promise.all(silent.slice(0, 6).map(closed))
  await here.shaken()
  const rest = silent.slice(6)
  assert.ok(rest.filter((socket) => socket.closed).length <= 1, 'at most one made room')
})

test('when there are too many in all, who has the most gives way', async () => {
  await using here = await crowded({ most: 6, each: 6 })
  const few = await mutes(2, () => here.mute('127.0.0.2'))
  const many = await mutes(6, () => here.mute('127.0.0.1'))
  await Promise.all(many.slice(0, 2).map(closed))
  assert.deepEqual(
    few.map((socket) => socket.closed),
    [false, false],
    'although they are older',
  )
})

test('a connection that has done its handshake counts no more, and is not ended', async (t) => {
  // Time passes when it is told to: a handshake on a busy machine is none that takes too long.
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await using here = await crowded({ most: 3, each: 3, within: 3_000 })
  const secured = [await here.shaken(), await here.shaken(), await here.shaken()]
  const silent = await mutes(9, here.mute)
  t.mock.timers.tick(3_000)
  await Promise.all(silent.map(closed)) // the last three by their time
  assert.deepEqual(
    secured.map((socket) => socket.closed),
    [false, false, false],
  )
  await here.shaken()
})

test('an IPv6 network counts as one source, an IPv4 address as itself', () => {
  assert.equal(sourceOf('::ffff:192.0.2.1'), '192.0.2.1')
  assert.equal(sourceOf('2001:db8:1:2:3:4:5:6'), sourceOf('2001:db8:1:2:ffff::9'))
  assert.notEqual(sourceOf('2001:db8:1:2::1'), sourceOf('2001:db8:1:3::1'))
})
