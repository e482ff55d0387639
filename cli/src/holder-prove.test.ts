import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run, Secret } from '@holdfast/base'
import { alwaysValid, keyId, selfSigned, serverTls } from '@holdfast/link'
import { createPins, holderRequests, type SealedUse, seal, threshold } from '@holdfast/seal'

// What a holder's key does for whoever has the coordinator's identity, which lies outside of its sealed
// state: a proof is nothing but a proof, and no share of one thing is handed in for another.

const program = fileURLToPath(new URL('main.ts', import.meta.url))
const cluster = 'c'.repeat(22)
const ann = generateKeyPairSync('rsa', { modulusLength: 3072 })
const identity = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString()
const person = {
  kind: 'pin',
  pin: 'person',
  config: { name: 'ann', key: pem(ann.publicKey) },
} as const

async function sealedFor(use: SealedUse): Promise<string> {
  using plaintext = Secret.random(32)
  return await seal(createPins(), threshold(1, [person, person]), plaintext, { use })
}

/** The one share of ann, as the coordinator makes a challenge, with another use written over its own. */
async function challengeFor(use: SealedUse, said = use): Promise<string> {
  using plaintext = Secret.random(32)
  const sealed = await seal(createPins(), person, plaintext, { use })
  const [head = '', ...rest] = sealed.split('.')
  const header = JSON.parse(Buffer.from(head, 'base64url').toString())
  const text = JSON.stringify({ ...header, holdfast: { ...header.holdfast, use: said } })
  return [Buffer.from(text).toString('base64url'), ...rest].join('.')
}

function statement(kind: string, ceremony: string, sealed: string): string {
  const digest = createHash('sha256').update(sealed).digest('base64url')
  const facts = { cluster, ceremony, kind, nonce: 'n'.repeat(22), digest, generation: 2 }
  const lines = Object.entries({ ...facts, holder: 'ann', expires: Date.now() + 3_600_000 })
  return ['holdfast-answer 1', ...lines.map(([name, value]) => `${name} ${value}`), ''].join('\n')
}

/** A coordinator that shows this, and what it is told in the end. */
async function coordinator(stack: AsyncDisposableStack, shown: object) {
  const certificate = await selfSigned(identity.privateKey, 'c', alwaysValid)
  const told: string[] = []
  const own = { key: identity.privateKey, certificate }
  const server = createServer(serverTls(own), async (request, response) => {
    response.setHeader('content-type', 'application/json')
    if (request.method === 'GET') return response.end(JSON.stringify(shown))
    const body = JSON.parse(Buffer.concat(await request.toArray()).toString())
    told.push(Buffer.from(body.statement, 'base64url').toString())
    const proven = { name: 'ann', kid: 'k'.repeat(43), provenAt: 1 }
    return response.end(JSON.stringify(proven))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-prove-'))
  stack.defer(async () => {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true })
  })
  const { port } = server.address() as AddressInfo // a listening TCP server has one
  const key = join(folder, 'ann.key')
  const text = ann.privateKey.export({ type: 'pkcs8', format: 'pem' })
  await writeFile(key, text, { mode: 0o600 })
  const place = ['--coordinator', `https://127.0.0.1:${port}`]
  place.push('--identity', keyId(identity.publicKey), '--key', key, '--json')
  const holder = async (...words: string[]) => {
    const accept = Array.from({ length: 16 }, (_, code) => code)
    const args = [program, 'holder', ...words, ...place]
    const { code, stdout, stderr } = await run(process.execPath, args, { accept })
    return { code, text: `${stdout.toString()}${stderr.toString()}` }
  }
  return { told, holder }
}

const wrappedOf = (sealed: string) => holderRequests(sealed)[0]?.wrapped.toString('base64url') ?? ''

test('a proof signs a proof, hands in what was wrapped for it, and nothing else', async () => {
  await using stack = new AsyncDisposableStack()
  const proof = { purpose: 'proof', of: 'ann' } as const
  const dataKey = { purpose: 'coordinator', of: cluster } as const
  const honest = await challengeFor(proof)
  const cases: [string, string, string, string | undefined][] = [
    ['proof', 'proof-ann', honest, undefined],
    ['dismissal', 'A'.repeat(22), honest, 'cli.digest_differs'],
    ['recovery', 'A'.repeat(22), await sealedFor(dataKey), 'cli.digest_differs'],
    ['proof', 'proof-ann', await sealedFor(dataKey), 'seal.use_foreign'],
    ['proof', 'proof-ann', await challengeFor({ ...proof, of: 'bob' }), 'seal.use_foreign'],
    ['proof', 'proof-ann', await challengeFor(dataKey, proof), 'seal.share_wrong'],
  ]
  for (const [kind, ceremony, sealed, refusal] of cases) {
    const shown = { statement: statement(kind, ceremony, sealed), wrapped: wrappedOf(sealed) }
    const there = await coordinator(stack, { ...shown, sealed, kid: 'k'.repeat(43) })
    const { text } = await there.holder('prove', 'ann')
    assert.equal(there.told.length, refusal === undefined ? 1 : 0, `${kind}: ${text}`)
    assert.match(text, refusal === undefined ? /provenAt/ : new RegExp(refusal))
  }
})

test("an answer hands in shares of this cluster's data key alone", async () => {
  await using stack = new AsyncDisposableStack()
  const sealed = await sealedFor({ purpose: 'vault', of: 'B'.repeat(43) })
  const text = statement('recovery', 'A'.repeat(22), sealed)
  const signature = sign('sha256', Buffer.from(text), identity.privateKey).toString('base64url')
  const shown = { holder: 'ann', kid: 'k'.repeat(43), algorithm: 'RSA-OAEP-256', sealed }
  const there = await coordinator(stack, {
    ...{ ...shown, wrapped: wrappedOf(sealed), statement: text, signature },
    key: pem(identity.publicKey),
  })
  const answered = await there.holder('answer', 'ann', '--ceremony', 'A'.repeat(22))
  assert.match(answered.text, /seal\.use_foreign/)
  assert.deepEqual(there.told, [])
})
