import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, connect as connectPlain, type Socket } from 'node:net'
import { test } from 'node:test'
import { connect, type TLSSocket } from 'node:tls'
import { alwaysValid, selfSigned } from './certificate.ts'
import { type PaceOptions, paceHandshakes } from './handshake-pace.ts'
import { serverTls } from './tls.ts'

interface Paced extends AsyncDisposable {
  server: Server
  port: number
  pace: Disposable
  /** Sockets whose handshake has begun and those whose handshake is done. */
  begun: number
  secured: number
  /** `begun` with the address, in this order. */
  log: string[]
  /** Resolves when the server has been told of so many connections. */
  came(count: number): Promise<void>
}

async function paced(options: PaceOptions): Promise<Paced> {
  const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const server = createServer(
    serverTls({ key, certificate: await selfSigned(key, 'x', alwaysValid) }),
  )
  const sockets = new Set<Socket>()
  const here = { begun: 0, secured: 0, log: [] as string[] }
  server.prependListener('connection', (socket: Socket) => {
    here.begun += 1
    here.log.push(`begun ${socket.remoteAddress}`)
    sockets.add(socket)
  })
  server.on('secureConnection', () => {
    here.secured += 1
  })
  const pace = paceHandshakes(server, options)
  let told = 0
  server.on('connection', () => {
    told += 1
  })
  const came = async (count: number) => {
    while (told < count) await once(server, 'connection')
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // a listening TCP server has one
  return Object.assign(here, {
    ...{ server, port, pace, came },
    [Symbol.asyncDispose]: async () => {
      pace[Symbol.dispose]()
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  })
}

/** True when the handshake was done, false when the server let the client go. */
function shake(port: number, localAddress = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const plain = connectPlain({ port, host: '127.0.0.1', localAddress })
    plain.once('error', () => resolve(false))
    const socket: TLSSocket = connect({ socket: plain, rejectUnauthorized: false })
    socket.once('secureConnect', () => resolve(true))
    socket.on('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}

/** Connects and never says anything. */
async function mute(port: number): Promise<Socket> {
  const socket = connectPlain({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  return socket
}

const many = (count: number, port: number) =>
  Promise.all(Array.from({ length: count }, () => shake(port)))

test('all that come at once are served, a few at a time', async () => {
  await using here = await paced({ atOnce: 2, share: 60_000, patience: 60_000 })
  const done = await many(40, here.port)
  assert.deepEqual(new Set(done), new Set([true]))
  assert.equal(here.begun, 40)
  // At most those two are still waiting for the client's last word.
  assert.ok(here.secured >= 38, `${here.secured}`)
})

test('whoever says nothing gives its place up and is not cut off for it', async () => {
  await using here = await paced({ atOnce: 1, share: 50, patience: 60_000 })
  using silent = disposed(await mute(here.port))
  assert.equal(await shake(here.port), true)
  assert.equal(silent.socket.destroyed, false)
})

test('whoever has waited too long is let go before its handshake is begun', async (t) => {
  // The silent one's share ends when all others wait, however slowly they have come.
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await using here = await paced({ atOnce: 1, share: 2_000, patience: 0 })
  using silent = disposed(await mute(here.port))
  const late = many(5, here.port)
  await here.came(6)
  t.mock.timers.tick(2_000)
  assert.deepEqual(await late, [false, false, false, false, false])
  assert.equal(here.begun, 1)
  assert.equal(silent.socket.destroyed, false)
  assert.equal(await shake(here.port), true)
})

test('more than may wait are closed at once', async () => {
  await using here = await paced({ atOnce: 1, share: 60_000, patience: 60_000, most: 3 })
  using silent = disposed(await mute(here.port))
  const clients = Array.from({ length: 10 }, () => shake(here.port))
  const refused = Promise.withResolvers<void>()
  let closed = 0
  for (const client of clients)
    void client.then((done) => {
      closed += done ? 0 : 1
      if (closed === 7) refused.resolve()
    })
  await refused.promise
  // Its place becomes free, and the three that were let in to wait are served.
  silent.socket.destroy()
  assert.equal((await Promise.all(clients)).filter((done) => done).length, 3)
})

test('one address that makes more connections than may wait keeps no other address out', async () => {
  await using here = await paced({ atOnce: 2, share: 100, patience: 60_000, most: 20 })
  const silent: Socket[] = []
  for (let index = 0; index < 60; index += 1) silent.push(await mute(here.port))
  const { log } = here
  here.server.prependListener('connection', ({ remoteAddress }: Socket) => {
    log.push(`came ${remoteAddress}`)
  })
  const [one, two] = await Promise.all([
    shake(here.port, '127.0.0.2'),
    shake(here.port, '127.0.0.3'),
  ])
  assert.deepEqual([one, two], [true, true])
  for (const address of ['127.0.0.2', '127.0.0.3']) {
    const waited = log.slice(log.indexOf(`came ${address}`), log.indexOf(`begun ${address}`))
    const before = waited.filter((line) => line === 'begun 127.0.0.1').length
    assert.ok(before <= 1, `${address} waited for ${before} of those who had come before it`)
  }
  for (const socket of silent) socket.destroy()
})

test('disposed, the server takes every connection as before', async () => {
  await using here = await paced({ atOnce: 1, share: 60_000, patience: 60_000 })
  using _silent = disposed(await mute(here.port))
  here.pace[Symbol.dispose]()
  assert.deepEqual(await many(3, here.port), [true, true, true])
})

function disposed(socket: Socket): { socket: Socket } & Disposable {
  return { socket, [Symbol.dispose]: () => void socket.destroy() }
}
