import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run, Secret } from '@holdfast/base'
import { alwaysValid, keyId, selfSigned, serverTls } from '@holdfast/link'
import { lockedStatePath, unlockPath } from '@holdfast/protocol'
import { createPins, type SealedUse, seal, threshold } from '@holdfast/seal'
import { compactDecrypt } from 'jose'

// Holders who open a node by themselves, and nodes that show them what is not theirs. The node is a
// server that says what it likes; the command and the holders' keys are real.

const program = fileURLToPath(new URL('main.ts', import.meta.url))
const ec = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const people = ['ann', 'bob'].map((name) => ({ name, ...ec() }))
const pem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString()

async function sealedFor(use: SealedUse | undefined): Promise<string> {
  const children = people.map(({ name, publicKey }) => ({
    ...{ kind: 'pin' as const, pin: 'person' },
    config: { name, key: pem(publicKey) },
  }))
  using plaintext = Secret.copy('the secret')
  const request = use === undefined ? {} : { use }
  return await seal(createPins(), threshold(2, children), plaintext, request)
}

/** A locked node that shows these as its holders' ways, and keeps what is pushed to it. */
async function lockedNode(stack: AsyncDisposableStack, ways: (id: string) => Promise<string[]>) {
  const [identity, exchange] = [ec(), ec()]
  const certificate = await selfSigned(identity.privateKey, 'node', alwaysValid)
  const id = keyId(identity.publicKey)
  const recovery = (await ways(id)).map((sealed, keyslot) => ({ keyslot, label: '', sealed }))
  const state = {
    ...{ v: 1, node: id, name: 'web', phase: 'locked', epoch: 0, needs: [], wrongKeys: 0 },
    ...{ network: 'mutual-tls', keys: 'file', lastErrors: [], recovery },
    exchange: pem(exchange.publicKey),
  }
  const pushed: string[] = []
  const own = { key: identity.privateKey, certificate }
  const server = createServer(serverTls(own), async (request, response) => {
    if (request.url === lockedStatePath) return response.end(JSON.stringify(state))
    assert.equal(request.url, unlockPath)
    const body = Buffer.concat(await request.toArray()).toString()
    const { plaintext } = await compactDecrypt(JSON.parse(body).sealed, exchange.privateKey)
    pushed.push(Buffer.from(plaintext).toString())
    return response.end(JSON.stringify({ phase: 'open' }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stack.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo // a listening TCP server has one
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-unlock-'))
  stack.defer(() => rm(folder, { recursive: true }))
  const words = ['--at', `127.0.0.1:${port}`, '--pin', id, '--json']
  for (const { name, privateKey } of people) {
    const file = join(folder, `${name}.key`)
    await writeFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
    words.push('--key', file)
  }
  const unlock = async (...more: string[]) => {
    const args = [program, 'node', 'unlock', ...words, ...more]
    const accept = Array.from({ length: 16 }, (_, code) => code)
    const { code, stdout, stderr } = await run(process.execPath, args, { accept })
    return { code, text: `${stdout.toString()}${stderr.toString()}` }
  }
  return { id, pushed, folder, unlock }
}

const another = 'B'.repeat(43)

test('holders open what was made for this node, and it gets nothing else', async () => {
  await using stack = new AsyncDisposableStack()
  const own = await lockedNode(stack, async (of) => [await sealedFor({ purpose: 'vault', of })])
  assert.equal((await own.unlock()).code, 0)
  assert.deepEqual(own.pushed, ['the secret'])

  const cases: (SealedUse | undefined)[] = [
    { purpose: 'coordinator', of: 'fleet' },
    { purpose: 'vault', of: another },
    { purpose: 'proof', of: 'ann' },
    undefined,
  ]
  for (const use of cases) {
    const lying = await lockedNode(stack, async () => [await sealedFor(use)])
    const { text } = await lying.unlock()
    assert.match(text, /seal\.use_foreign/, JSON.stringify(use))
    const shares = join(lying.folder, 'shares')
    assert.match((await lying.unlock('--export-shares', shares)).text, /seal\.use_foreign/)
    assert.deepEqual((await readdir(lying.folder)).sort(), ['ann.key', 'bob.key'])
    assert.deepEqual(lying.pushed, [])
  }
})

test("after panic 2 the header is of the node's former id, which its operator has to name", async () => {
  await using stack = new AsyncDisposableStack()
  const way = await sealedFor({ purpose: 'vault', of: another })
  const restored = await lockedNode(stack, async () => [way])
  const { text } = await restored.unlock()
  assert.match(text, new RegExp(`--made-for ${another}`))
  assert.match((await restored.unlock('--made-for', 'C'.repeat(43))).text, /seal\.use_foreign/)
  assert.deepEqual(restored.pushed, [])
  assert.equal((await restored.unlock('--made-for', another)).code, 0)
  assert.deepEqual(restored.pushed, ['the secret'])
})
