import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run, Secret, systemClock } from '@holdfast/base'
import { client } from './api-client-fixture.ts'
import { readCeremony, statementFor, takeAnswer } from './ceremonies.ts'
import { Coordinator } from './coordinator.ts'
import {
  answerOf,
  answerOne,
  claimed,
  depsOf,
  manifestOf,
  type Person,
  person,
  place,
} from './coordinator-fixture.ts'
import { finish } from './finish.ts'
import { makeAnswerFile, readRequestFile } from './holder-file.ts'
import { challengeHolder, proveHolder } from './holders.ts'
import { proposeManifest } from './manifests.ts'
import { removeOaep } from './oaep.ts'
import { openRecovery } from './recovery.ts'
import { serveApi } from './server.ts'
import { shareAnswer } from './statement.ts'

// Holders without our software: the commands of docs/operator/holders.md as they stand there, a real
// PKCS#11 token, and files carried over an air gap.

const guide = fileURLToPath(new URL('../../docs/operator/holders.md', import.meta.url))
const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(person)
assert.ok(alice && bob && carol)

/** The shell blocks of the guide, in order. */
async function commands(): Promise<string[]> {
  const text = await readFile(guide, 'utf8')
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = '']) => block)
}

/** A sealed coordinator that serves, with a recovery begun; k = 2 of the three holders. */
async function sealedServer(
  people: readonly Person[],
  prover: readonly Person[],
  clock = systemClock,
) {
  const here = await place()
  const first = await claimed(here.options)
  const { ceremony: change } = await proposeManifest(
    first,
    depsOf(first),
    manifestOf(people, 2),
    'test',
  )
  assert.ok(change)
  for (const who of prover) await answerOne(first, change, who)
  await finish(first, depsOf(first), await readCeremony(depsOf(first), change.id))
  await first[Symbol.asyncDispose]()
  await rm(join(here.directory, 'host.key'))
  const coordinator = await Coordinator.start(here.options)
  const stop = new AbortController()
  const server = await serveApi(
    { coordinator, host: '127.0.0.1', port: 0, instance: 'one', clock },
    stop.signal,
  )
  const ceremony = await openRecovery(coordinator, depsOf(coordinator), 'test')
  return {
    coordinator,
    server,
    ceremony,
    ask: client(server, coordinator.identity.digest),
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]()
      await coordinator[Symbol.asyncDispose]()
      await here[Symbol.asyncDispose]()
    },
  }
}

async function folder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-holder-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

test('a holder with openssl and curl alone recovers by the commands of the guide', async () => {
  const [makeKey = '', connect, ask, unwrap, _approve, signs, handIn] = await commands()
  const answering = [connect, ask, unwrap, signs, handIn]
  await using desk = await folder()
  const shell = async (script: string, environment: Record<string, string>) =>
    await run('bash', ['-euo', 'pipefail', '-c', script], { cwd: desk.path, environment })
  await shell(makeKey, { HOLDER: 'olga' })
  const olga = { ...alice, name: 'olga', pem: await readFile(join(desk.path, 'olga.pub'), 'utf8') }
  await using sealed = await sealedServer([olga, bob, carol], [bob, carol])
  await answerOne(sealed.coordinator, sealed.ceremony, bob)
  const environment = {
    HOLDER: 'olga',
    PIN: sealed.coordinator.identity.digest,
    COORDINATOR: `https://127.0.0.1:${sealed.server.port}`,
  }
  await shell(answering.join('\n'), environment)
  const reply = JSON.parse(await readFile(join(desk.path, 'reply.json'), 'utf8'))
  assert.equal(reply.state, 'done')
  assert.equal(sealed.coordinator.state, 'running')
  const other = { ...environment, PIN: 'A'.repeat(43) }
  await assert.rejects(shell(answering.join('\n'), other), { code: 'base.program_failed' })
})

test('a holder whose key is in a PKCS#11 token recovers, though the token cannot do OAEP', async () => {
  await using desk = await folder()
  const module_ = '/usr/lib/softhsm/libsofthsm2.so'
  await mkdir(join(desk.path, 'tokens'))
  await writeFile(
    join(desk.path, 'conf'),
    `directories.tokendir = ${desk.path}/tokens\nobjectstore.backend = file\n`,
  )
  const environment = { SOFTHSM2_CONF: join(desk.path, 'conf'), PIN: '1234' }
  const options = { cwd: desk.path, environment }
  const slot = ['--init-token', '--free', '--label', 'holder', '--pin', '1234', '--so-pin', '5678']
  await run('softhsm2-util', slot, options)
  const token = async (...words: string[]) =>
    await run(
      'pkcs11-tool',
      ['--module', module_, '--login', '--pin', 'env:PIN', ...words],
      options,
    )
  const pair = ['--keypairgen', '--key-type', 'rsa:3072', '--id', '01', '--label', 'holder']
  await token(...pair, '--usage-decrypt', '--usage-sign')
  await token('--read-object', '--type', 'pubkey', '--id', '01', '--output-file', 'public.der')
  await run(
    'openssl',
    ['pkey', '-pubin', '-inform', 'DER', '-in', 'public.der', '-out', 'public.pem'],
    options,
  )
  const pem = await readFile(join(desk.path, 'public.pem'), 'utf8')
  await using sealed = await sealedServer(
    [{ ...alice, name: 'hanna', pem }, bob, carol],
    [bob, carol],
  )
  await answerOne(sealed.coordinator, sealed.ceremony, carol)
  const { body } = await sealed.ask('GET', `/v1/ceremonies/${sealed.ceremony.id}/requests/hanna`)
  await writeFile(join(desk.path, 'wrapped'), Buffer.from(String(body.wrapped), 'base64url'))
  const decrypt = ['--decrypt', '--id', '01', '--input-file', 'wrapped', '--output-file', 'block']
  const oaep = ['-m', 'RSA-PKCS-OAEP', '--hash-algorithm', 'SHA256', '--mgf', 'MGF1-SHA256']
  await assert.rejects(token(...decrypt, ...oaep), /CKR_ARGUMENTS_BAD/)
  await token(...decrypt, '-m', 'RSA-X-509')
  using share = removeOaep(Secret.take(await readFile(join(desk.path, 'block'))), 384)
  const statement = Buffer.from(`${body.statement}${shareAnswer(share)}\n`)
  await writeFile(join(desk.path, 'statement'), statement)
  const signing = ['--sign', '-m', 'SHA256-RSA-PKCS', '--id', '01']
  await token(...signing, '--input-file', 'statement', '--output-file', 'signature')
  const signature = await readFile(join(desk.path, 'signature'))
  const reply = await sealed.ask('POST', `/v1/ceremonies/${sealed.ceremony.id}/answers`, {
    holder: 'hanna',
    statement: statement.toString('base64url'),
    signature: signature.toString('base64url'),
  })
  assert.equal(reply.body.state, 'done', JSON.stringify(reply.body))
})

test('over an air gap: the request proves who asks, the answer hides the share from the courier', async () => {
  await using sealed = await sealedServer([alice, bob, carol], [bob, carol])
  const { coordinator, ceremony, ask } = sealed
  await answerOne(coordinator, ceremony, bob)
  const path = `/v1/ceremonies/${ceremony.id}`
  const { body } = await ask('GET', `${path}/requests/alice`)
  const carried = JSON.stringify(body)
  const pin = coordinator.identity.digest
  const request = readRequestFile(carried, pin)
  assert.throws(() => readRequestFile(carried, 'A'.repeat(43)), {
    code: 'ceremony.request_untrusted',
  })
  const altered = carried.replace('holder alice', 'holder mallory')
  assert.throws(() => readRequestFile(altered, pin), { code: 'ceremony.request_untrusted' })
  const { statement, signature } = answerOf(alice, request.statement, request.wrapped)
  const share = /share (\w+)/.exec(statement.toString())?.[1] ?? ''
  using secret = Secret.copy(statement)
  const file = await makeAnswerFile(request, secret, signature)
  for (const text of [share, Buffer.from(share, 'hex').toString('base64url')])
    assert.equal(file.includes(text), false)
  const reply = await ask('POST', `${path}/answers`, JSON.parse(file))
  assert.equal(reply.body.state, 'done', JSON.stringify(reply.body))
})

test('a challenge stays as it is until it is answered, and proves the key while sealed', async () => {
  await using sealed = await sealedServer([alice, bob, carol], [bob, carol])
  const { coordinator } = sealed
  const { clock } = depsOf(coordinator)
  const first = await challengeHolder(coordinator, clock, 'alice')
  assert.deepEqual(await challengeHolder(coordinator, clock, 'alice'), first)
  const before = coordinator.reason
  await proveHolder(coordinator, clock, 'alice', answerOf(alice, first.statement, first.wrapped))
  assert.deepEqual([before, coordinator.reason], ['key_missing', 'key_missing'])
  const { body } = await sealed.ask('GET', '/v1/status')
  assert.equal((body.holders as { provenWithin90Days: number }).provenWithin90Days, 3)
  assert.deepEqual(body.alarms, [])
  await assert.rejects(
    proveHolder(coordinator, clock, 'alice', answerOf(alice, first.statement, first.wrapped)),
    { code: 'ceremony.unknown' },
  )
})

test('1000 junk answers cost little and change nothing; the next right one counts', async () => {
  // Limits are of a minute, which the requests of a slow machine may outlast.
  const [began, people] = [systemClock.now(), [alice, bob, carol]]
  const clock = { ...systemClock, now: () => began }
  await using sealed = await sealedServer(people, [bob, carol], clock)
  const { coordinator, ceremony, server } = sealed
  const junk = client(server, coordinator.identity.digest, '127.0.0.2')
  const count = async (table: 'audit' | 'answers' | 'ceremonies') =>
    (await coordinator.store.read.selectFrom(table).selectAll().execute()).length
  const before = [await count('audit'), await count('answers'), await count('ceremonies')]
  const bytes = (length: number) => Buffer.alloc(length, 'x').toString('base64url')
  const bodies = [
    { holder: 'alice', statement: bytes(500), signature: bytes(384) },
    { holder: 'mallory', statement: bytes(500), signature: bytes(384) },
    { holder: 'alice', statement: bytes(40_000), signature: bytes(1) },
    { holder: 'alice', statement: 'eyJh.b.c.d.e', signature: bytes(384) },
    { holder: 'alice' },
  ]
  const statuses = new Map<number, number>()
  const path = `/v1/ceremonies/${ceremony.id}/answers`
  for (let sent = 0; sent < 1000; sent += 1) {
    const { status } = await junk('POST', path, bodies[sent % bodies.length])
    statuses.set(status, (statuses.get(status) ?? 0) + 1)
  }
  assert.equal(statuses.get(200), undefined)
  assert.ok((statuses.get(429) ?? 0) > 500, 'the source is limited')
  assert.deepEqual(
    [await count('audit'), await count('answers'), await count('ceremonies')],
    before,
  )
  await answerOne(coordinator, ceremony, alice)
  const path2 = `/v1/ceremonies/${ceremony.id}/requests/bob`
  assert.equal((await sealed.ask('GET', path2)).status, 200, 'other sources are not limited')
  const after = await readCeremony(depsOf(coordinator), ceremony.id)
  assert.deepEqual(
    after.answered.map(({ holder }) => holder),
    ['alice'],
  )
})

test('one holder who signs nonsense is not listened to any more, and the others go on', async () => {
  await using sealed = await sealedServer([alice, bob, carol], [bob, carol])
  const { coordinator, ceremony } = sealed
  const deps = depsOf(coordinator)
  const handler = { needsShare: true, check: async () => undefined, keep: async () => '' }
  const approve = () =>
    takeAnswer(
      deps,
      ceremony.id,
      answerOf(alice, statementFor(deps, ceremony, 'alice'), undefined),
      handler,
    )
  for (let tried = 0; tried < 20; tried += 1)
    await assert.rejects(approve(), { code: 'ceremony.share_needed' })
  await assert.rejects(approve(), { code: 'ceremony.too_many_attempts' })
  assert.equal((await readCeremony(deps, ceremony.id)).rejected.length, 20)
  await answerOne(coordinator, ceremony, bob)
  await answerOne(coordinator, ceremony, carol)
  assert.equal((await readCeremony(deps, ceremony.id)).state, 'met')
})
