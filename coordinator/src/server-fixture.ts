import assert from 'node:assert/strict'
import { constants, generateKeyPairSync, type KeyObject, privateDecrypt, sign } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { defined } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { type Ask, client, type Reply } from './api-client-fixture.ts'
import { Coordinator } from './coordinator.ts'
import { filePin } from './file-pin.ts'
import { type ServerOptions, serveApi } from './server.ts'

// What the tests over HTTPS share: a coordinator on a port of its own, and holders with RSA keys.

export const people = Object.fromEntries(
  ['alice', 'bob', 'carol'].map((name) => [
    name,
    generateKeyPairSync('rsa', { modulusLength: 3072 }),
  ]),
)
const keys = Object.fromEntries(
  Object.entries(people).map(([name, { publicKey }]) => [
    name,
    publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  ]),
)
export const manifest = {
  version: 1,
  cluster: 'fleet',
  holders: { threshold: 2, keys },
  users: { root: { roles: ['admin'] }, watcher: { roles: ['auditor'] } },
}

export async function started() {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-api-'))
  const options = {
    directory,
    store: { engine: 'sqlite', path: join(directory, 'state.db') } as const,
    pins: createPins({ extra: [filePin()] }),
  }
  const start = async (changes: Partial<ServerOptions> = {}) => {
    const { clock } = changes
    const coordinator = await Coordinator.start({ ...options, ...defined({ clock }) })
    const server = await serveApi(
      { coordinator, host: '127.0.0.1', port: 0, instance: 'one', ...changes },
      new AbortController().signal,
    )
    const ask = client(server, coordinator.identity.digest)
    let stopped = false
    const stop = async () => {
      if (stopped) return
      stopped = true
      await server[Symbol.asyncDispose]()
      await coordinator[Symbol.asyncDispose]()
    }
    return { coordinator, server, ask, stop, [Symbol.asyncDispose]: stop }
  }
  const token = async () => (await readFile(join(directory, 'claim-token'), 'utf8')).trim()
  return {
    directory,
    start,
    token,
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

export const password = 'correct horse battery'

/** A holder's answer made with plain RSA operations. */
export function answer(
  name: string,
  key: KeyObject,
  asked: Record<string, unknown>,
): Record<string, string> {
  const wrapped = Buffer.from(String(asked.wrapped), 'base64url')
  const contentKey = privateDecrypt(
    { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' },
    wrapped,
  )
  const statement = Buffer.from(`${asked.statement}share ${contentKey.toString('hex')}\n`)
  return {
    holder: name,
    statement: statement.toString('base64url'),
    signature: sign('sha256', statement, key).toString('base64url'),
  }
}

export async function answerAll(ask: Ask, id: string, names: string[]): Promise<Reply> {
  let last: Reply = { status: 0, body: {}, text: '', cookie: '', setCookie: '' }
  for (const name of names) {
    const pair = people[name]
    assert.ok(pair)
    const { body } = await ask('GET', `/v1/ceremonies/${id}/requests/${name}`)
    last = await ask('POST', `/v1/ceremonies/${id}/answers`, answer(name, pair.privateKey, body))
  }
  return last
}

/** Claims, and signs `root` in; what a browser sends with every request then. */
export async function claimOver(ask: Ask, token: string): Promise<Record<string, string>> {
  const claimed = await ask('POST', '/v1/claim', { token, user: 'root', password })
  assert.equal(claimed.status, 200, JSON.stringify(claimed.body))
  return await signInOver(ask)
}

export async function signInOver(ask: Ask, user = 'root'): Promise<Record<string, string>> {
  const { status, cookie, body } = await ask('POST', '/v1/sessions', { user, password })
  assert.equal(status, 200, JSON.stringify(body))
  return { cookie, 'x-csrf-token': String(body.csrf) }
}

export function codeOf({ body }: Reply): string | undefined {
  return (body.error as { code: string } | undefined)?.code
}
