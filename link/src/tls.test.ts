import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { standStill } from '@holdfast/base/stand-still-fixture'
import { alwaysValid, certificateRequest, issue, selfSigned } from './certificate.ts'
import { exchange } from './exchange.ts'
import { keyId } from './key-id.ts'
import { nodeOf, type OwnCertificate, pinnedTls, serverTls } from './tls.ts'

function p256(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

async function identity(): Promise<OwnCertificate> {
  const key = p256()
  return { key, certificate: await selfSigned(key, 'coordinator', alwaysValid) }
}

async function fleet() {
  const key = p256()
  const certificate = await selfSigned(key, 'fleet', alwaysValid, { authority: true })
  return {
    certificate,
    node: async (): Promise<OwnCertificate & { id: string }> => {
      const own = p256()
      const request = await certificateRequest(own)
      const issued = await issue(request, { key, certificate }, alwaysValid, [])
      return { key: own, certificate: issued.certificate, id: issued.node }
    },
  }
}

/** Answers with the node id that it sees, and counts the bytes of requests that reach it. */
async function serve(own: OwnCertificate, authority?: string, required = false) {
  const server = createServer(serverTls(own, authority, required), (request, response) => {
    response.end(nodeOf(request.socket) ?? 'nobody')
  })
  let requests = 0
  server.on('request', () => {
    requests += 1
  })
  let connections = 0
  server.on('secureConnection', () => {
    connections += 1
  })
  server.on('tlsClientError', () => undefined)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // a listening TCP server has one
  return {
    url: `https://127.0.0.1:${port}/`,
    requests: () => requests,
    connections: () => connections,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

test('a client talks to the server whose key it has pinned', async () => {
  const own = await identity()
  await using server = await serve(own)
  const tls = pinnedTls(keyId(own.key))
  const first = await exchange(server.url, { method: 'GET', tls })
  const second = await exchange(server.url, { method: 'GET', tls })
  assert.deepEqual([first.body, second.body, server.requests()], ['nobody', 'nobody', 2])
  tls.destroy()
})

test('another key gets no byte of the request', async () => {
  await using server = await serve(await identity())
  const tls = pinnedTls(keyId(p256()))
  const request = exchange(server.url, { method: 'POST', body: 'secret', tls })
  await assert.rejects(request, { code: 'link.identity_mismatch' })
  assert.equal(server.requests(), 0)
})

test('the pin holds for a certificate renewed on the same key', async () => {
  const own = await identity()
  const renewed = await selfSigned(own.key, 'other name', alwaysValid)
  await using server = await serve({ key: own.key, certificate: renewed })
  const tls = pinnedTls(keyId(own.key))
  assert.equal((await exchange(server.url, { method: 'GET', tls })).status, 200)
  tls.destroy()
})

test('a coordinator recognises its nodes and serves others without', async () => {
  const [own, ours, theirs] = [await identity(), await fleet(), await fleet()]
  await using server = await serve(own, ours.certificate)
  const [node, stranger] = [await ours.node(), await theirs.node()]
  const ask = async (as?: OwnCertificate) => {
    const tls = pinnedTls(keyId(own.key), as === undefined ? {} : { own: as })
    const { body } = await exchange(server.url, { method: 'GET', tls })
    tls.destroy()
    return body
  }
  assert.deepEqual(
    [await ask(node), await ask(stranger), await ask()],
    [node.id, 'nobody', 'nobody'],
  )
})

test('nodes know each other both ways, and refuse everybody else', async () => {
  const [ours, theirs] = [await fleet(), await fleet()]
  const [guardian, ward, stranger] = [await ours.node(), await ours.node(), await theirs.node()]
  await using server = await serve(guardian, ours.certificate, true)
  const ask = async (as: OwnCertificate | undefined, expected: string, authority: string) => {
    const tls = pinnedTls(expected, { authority, ...(as === undefined ? {} : { own: as }) })
    try {
      return (await exchange(server.url, { method: 'GET', tls })).body
    } finally {
      tls.destroy()
    }
  }
  assert.equal(await ask(ward, guardian.id, ours.certificate), ward.id)
  await assert.rejects(ask(stranger, guardian.id, ours.certificate), { code: 'link.unreachable' })
  await assert.rejects(ask(undefined, guardian.id, ours.certificate), { code: 'link.unreachable' })
  const mismatch = { code: 'link.identity_mismatch' }
  await assert.rejects(ask(ward, ward.id, ours.certificate), mismatch)
  await assert.rejects(ask(ward, guardian.id, theirs.certificate), mismatch)
  assert.equal(server.requests(), 1)
})

test('a peer is given the time that this machine stood still', async () => {
  const own = await identity()
  const server = createServer(serverTls(own), (_request, response) => {
    standStill(1_500)
    response.end('there')
  })
  server.on('connection', () => standStill(1_500)) // before the handshake
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // as above
  const tls = pinnedTls(keyId(own.key), { timeout: 1_000 })
  try {
    const options = { method: 'GET', tls, timeout: 1_000 } as const
    assert.equal((await exchange(`https://127.0.0.1:${port}/`, options)).body, 'there')
  } finally {
    tls.destroy()
    server.closeAllConnections()
    server.close()
  }
})

test('nobody listening, silence and too long replies are told apart', async () => {
  const own = await identity()
  const tls = pinnedTls(keyId(own.key))
  await assert.rejects(exchange('https://127.0.0.1:1/', { method: 'GET', tls }), {
    code: 'link.unreachable',
    message: /ECONNREFUSED/,
  })
  await using server = await serve(own)
  await assert.rejects(exchange(server.url, { method: 'GET', tls, limit: 3 }), {
    code: 'link.reply_invalid',
  })
  await assert.rejects(exchange('ftp://127.0.0.1/', { method: 'GET', tls }), {
    code: 'link.address_invalid',
  })
  const { createServer: plainServer } = await import('node:net')
  const silent = plainServer(() => undefined).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo // as above
  const impatient = pinnedTls(keyId(own.key), { timeout: 200 })
  const url = `https://127.0.0.1:${port}/`
  await assert.rejects(exchange(url, { method: 'GET', tls: impatient }), {
    code: 'link.unreachable',
    message: /handshake/,
  })
  impatient.destroy()
  silent.close()
  tls.destroy()
})

test('a connection that has lain idle is not used again: it may have been closed while nobody looked', async (t) => {
  const own = await identity()
  await using server = await serve(own)
  const tls = pinnedTls(keyId(own.key))
  t.after(() => tls.destroy())
  t.mock.timers.enable({ apis: ['Date'], now: 1_000_000 })
  const ask = async () => {
    await exchange(server.url, { method: 'GET', tls })
    await new Promise((resolve) => setImmediate(resolve)) // by then it is kept
    return server.connections()
  }
  assert.deepEqual([await ask(), await ask()], [1, 1])
  t.mock.timers.setTime(1_005_000)
  assert.equal(await ask(), 2)
  t.mock.timers.setTime(1_000_000) // the clock is set back
  assert.equal(await ask(), 3)
})
