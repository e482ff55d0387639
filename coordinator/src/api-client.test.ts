import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { ApiClient, shownIdentity } from '@holdfast/link/api-client'
import {
  ceremonyRoutes,
  keyRoutes,
  manifestRoutes,
  statusRoutes,
  userRoutes,
} from '@holdfast/protocol'
import { type RunningService, runService } from './service.ts'

// The client against a real coordinator; link/src has it against servers that are none.

const stop = new AbortController()
let directory: string
let url: string
let identity: string
let service: Promise<void>

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hf-api-'))
  const ready = Promise.withResolvers<RunningService>()
  service = runService(
    {
      directory,
      store: { engine: 'sqlite', path: join(directory, 'state.db') },
      host: '127.0.0.1',
      port: 0,
      instance: 'one',
      onResume: () => undefined,
    },
    async (running) => ready.resolve(running),
    stop.signal,
  )
  const { port, coordinator } = await Promise.race([ready.promise, service.then(unexpected)])
  url = `https://127.0.0.1:${port}`
  identity = coordinator.identity.digest
})
after(async () => {
  stop.abort()
  await service
  await rm(directory, { recursive: true })
})

function unexpected(): never {
  throw new Error('the coordinator ended')
}

test('the identity that it shows is its own', async () => {
  assert.equal(await shownIdentity(url), identity)
})

test('an answer is checked against the route, a fault keeps code, kind, hint and details', async () => {
  using client = new ApiClient({ url: `${url}/`, identity })
  const status = await client.call(statusRoutes.status)
  assert.deepEqual([status.state, status.identity], ['uninitialised', identity])
  await assert.rejects(client.call(keyRoutes.list), {
    code: 'coordinator.not_in_this_state',
    kind: 'refused',
    hint: 'holdfast coordinator claim, with the token in the file claim-token',
  })
  const body = { token: 'wrong', user: 'admin', password: 'short' }
  await assert.rejects(client.call(statusRoutes.claim, { body }), (error: unknown) => {
    const { code, kind, details } = error as { code: string; kind: string; details: object } // a Fault
    assert.deepEqual([code, kind], ['api.request_invalid', 'invalid'])
    assert.match(JSON.stringify(details), /"path":"password"/)
    return true
  })
})

test('a session makes a token with its cookie, and the token is shown with every request', async () => {
  const token = (await readFile(join(directory, 'claim-token'), 'utf8')).trim()
  using client = new ApiClient({ url, identity })
  const secret = { user: 'admin', password: 'a long enough one' }
  await client.call(statusRoutes.claim, { body: { token, ...secret } })
  const { value, cookie } = await client.send(userRoutes.login, { body: secret })
  assert.match(cookie, /^__Host-holdfast=/)
  const made = await client.call(userRoutes.createToken, {
    headers: { cookie, 'x-csrf-token': value.csrf },
    body: { label: 'test', scopes: ['admin'] },
  })
  using admin = new ApiClient({ url, identity, token: made.token })
  const { entries } = await admin.call(userRoutes.audit, { query: { after: 1, limit: 1 } })
  assert.deepEqual(
    entries.map(({ sequence }) => sequence),
    [2],
  )
  await assert.rejects(client.call(userRoutes.audit), {
    code: 'user.not_signed_in',
    hint: 'holdfast coordinator login',
  })
  const body = { manifest: { version: 1, cluster: 'fleet', holder: {} } }
  await assert.rejects(admin.call(manifestRoutes.set, { body }), {
    code: 'coordinator.manifest_invalid',
  })
})

test('words in a path stay one word', async () => {
  using client = new ApiClient({ url, identity })
  const params = { name: '../../v1/status' }
  await assert.rejects(client.call(ceremonyRoutes.challenge, { params }), (error: unknown) => {
    assert.match((error as { code: string }).code, /^(api|ceremony)\./) // a Fault
    return true
  })
})
