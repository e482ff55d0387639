import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { createServer, type Server } from 'node:https'
import { test } from 'node:test'
import { statusRoutes } from '@holdfast/protocol'
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
