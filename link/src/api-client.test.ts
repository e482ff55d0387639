import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { createServer, type Server } from 'node:https'
import { test } from 'node:test'
import { keyRoutes, statusRoutes } from '@holdfast/protocol'
import { ApiClient, shownIdentity } from './api-client.ts'
import { alwaysValid, selfSigned } from './certificate.ts'
import { keyId } from './key-id.ts'

// The client against servers that are no coordinator; coordinator/src has it against a real one.

/** A server with a key of its own that answers everything with this. */
async function stranger(
  status: number,
  body: string,
): Promise<{ url: string; key: KeyObject; requests: string[] } & AsyncDisposable> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const requests: string[] = []
  const server: Server = createServer(
    {
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
      cert: await selfSigned(privateKey, 'stranger', alwaysValid),
    },
    (request, response) => {
      requests.push(`${request.method} ${request.url}`)
      response.writeHead(status).end(body)
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  return {
    url: `https://127.0.0.1:${address.port}`,
    key: privateKey,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

test('the identity is found out without sending anything, and pinned', async () => {
  await using other = await stranger(200, '{"alive":true}')
  assert.equal(await shownIdentity(other.url), keyId(other.key))
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const place = { url: other.url, identity: keyId(privateKey), token: 'hf_secret' }
  using client = new ApiClient(place)
  await assert.rejects(client.call(statusRoutes.live), { code: 'link.identity_mismatch' })
  assert.deepEqual(other.requests, [])
})

for (const [what, status, body] of [
  ['no JSON', 200, '<html>'],
  ['another shape', 200, '{"alive":"yes"}'],
  ['an error that is none of ours', 502, '{"message":"bad gateway"}'],
] as const) {
  test(`${what} is a malformed answer`, async () => {
    await using other = await stranger(status, body)
    using client = new ApiClient({ url: other.url, identity: keyId(other.key) })
    await assert.rejects(client.call(statusRoutes.live), { code: 'link.reply_malformed' })
  })
}

test('an unknown kind of fault counts as a defect, whatever it claims', async () => {
  const error = { code: 'x.y', kind: 'fatal', message: 'no' }
  await using other = await stranger(400, JSON.stringify({ error }))
  using client = new ApiClient({ url: other.url, identity: keyId(other.key) })
  await assert.rejects(client.call(statusRoutes.live), { code: 'x.y', kind: 'internal' })
})

test('an answer in parts comes as it is made, and one that breaks off is never taken for whole', async () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const options = {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    cert: await selfSigned(privateKey, 'server', alwaysValid),
  }
  let goOn: () => void = () => undefined
  let isWhole = true
  const server = createServer(options, (_request, response) => {
    response.writeHead(200).write('one\n')
    goOn = () => (isWhole ? void response.end('two\n') : void response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  const url = `https://127.0.0.1:${address.port}`
  using client = new ApiClient({ url, identity: keyId(privateKey) })
  try {
    const whole = client.receive(keyRoutes.backup)
    assert.equal(String((await whole.next()).value), 'one\n')
    goOn()
    assert.equal(String((await whole.next()).value), 'two\n')
    assert.equal((await whole.next()).done, true)
    isWhole = false
    const cut = client.receive(keyRoutes.backup)
    await cut.next()
    goOn()
    await assert.rejects(cut.next(), { code: 'link.unreachable' })
  } finally {
    server.closeAllConnections()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  }
  await assert.rejects(client.receive(keyRoutes.backup).next(), { code: 'link.unreachable' })
})

test('a fault instead of an answer in parts is that fault', async () => {
  const error = { code: 'user.forbidden', kind: 'refused', message: 'no' }
  await using other = await stranger(403, JSON.stringify({ error }))
  using client = new ApiClient({ url: other.url, identity: keyId(other.key) })
  await assert.rejects(client.receive(keyRoutes.backup).next(), { code: 'user.forbidden' })
  await using silly = await stranger(502, '<html>')
  using second = new ApiClient({ url: silly.url, identity: keyId(silly.key) })
  await assert.rejects(second.receive(keyRoutes.backup).next(), { code: 'link.reply_malformed' })
})
