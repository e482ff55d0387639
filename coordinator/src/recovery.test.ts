import assert from 'node:assert/strict'
import {
  constants,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  sign,
} from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Secret, systemClock } from '@holdfast/base'
import { thumbprint } from '@holdfast/crypto'
import { createPins } from '@holdfast/seal'
import { compactDecrypt } from 'jose'
import { verifyAudit } from './audit.ts'
import { type CeremonyDeps, readCeremony, statementFor, takeAnswer } from './ceremonies.ts'
import { Coordinator } from './coordinator.ts'
import { filePin } from './file-pin.ts'
import {
  combine,
  finishRecovery,
  holdersWay,
  openRecovery,
  shareHandler,
  wrappedShare,
} from './recovery.ts'
import { shareAnswer } from './statement.ts'

interface Person {
  name: string
  privateKey: KeyObject
  pem: string
  kid: string
}

function person(name: string): Person {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 3072 })
  const jwk = publicKey.export({ format: 'jwk' })
  return {
    name,
    privateKey,
    pem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    kid: thumbprint({ ...jwk, kty: jwk.kty ?? '' }),
  }
}

const people = ['alice', 'bob', 'carol', 'dave', 'erin'].map(person)

/** A claimed coordinator whose holders are set up, then restarted without its host key. */
async function sealedCluster() {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-recovery-'))
  const options = {
    directory,
    store: { engine: 'sqlite', path: join(directory, 'state.db') } as const,
    pins: createPins({ extra: [filePin()] }),
  }
  const first = await Coordinator.start(options)
  await first.claim(
    await readFile(join(directory, 'claim-token'), 'utf8'),
    'fleet',
    async () => undefined,
  )
  const { digest } = await first.prepareGeneration({
    threshold: 3,
    list: people.map(({ name, kid, pem }) => ({ name, kid, key: pem })),
  })
  await first.activateGeneration(digest, async () => undefined)
  await first[Symbol.asyncDispose]()
  await rm(join(directory, 'host.key'))
  const start = async () => {
    const coordinator = await Coordinator.start(options)
    const deps: CeremonyDeps = {
      store: coordinator.store,
      clock: systemClock,
      cluster: () => coordinator.header?.cluster ?? '',
    }
    return { coordinator, deps }
  }
  return { directory, start, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) }
}

/** What a holder does by hand: unwrap with the private key, append the line, sign. */
function answerOf(
  who: Person,
  statement: string,
  wrapped: string,
): { holder: string; statement: Buffer; signature: Buffer } {
  const contentKey = privateDecrypt(
    { key: who.privateKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' },
    Buffer.from(wrapped, 'base64url'),
  )
  const text = Buffer.from(`${statement}${shareAnswer(Secret.take(contentKey))}\n`)
  return { holder: who.name, statement: text, signature: sign('sha256', text, who.privateKey) }
}

test('any three of five holders recover, across a restart in the middle', async () => {
  await using cluster = await sealedCluster()
  let { coordinator, deps } = await cluster.start()
  assert.deepEqual([coordinator.state, coordinator.reason], ['recovery', 'key_missing'])
  let ceremony = await openRecovery(coordinator, deps, 'test')
  for (const [index, name] of ['erin', 'bob', 'carol'].entries()) {
    const who = people.find((each) => each.name === name)
    assert.ok(who)
    const sealed = await holdersWay(coordinator, 'active')
    const { wrapped } = wrappedShare(sealed, name)
    const answer = answerOf(who, statementFor(deps, ceremony, name), wrapped)
    ceremony = await takeAnswer(
      deps,
      ceremony.id,
      answer,
      shareHandler(coordinator.identity, sealed),
    )
    assert.equal(ceremony.answered.length, index + 1)
    assert.equal(ceremony.state, index === 2 ? 'met' : 'open')
    await coordinator[Symbol.asyncDispose]()
    ;({ coordinator, deps } = await cluster.start())
    ceremony = await readCeremony(deps, ceremony.id)
  }
  await finishRecovery(coordinator, deps, ceremony)
  assert.equal(coordinator.state, 'ready')
  assert.match((await coordinator.secret('authority-key')).reveal().toString(), /PRIVATE KEY/)
  assert.equal((await readCeremony(deps, ceremony.id)).state, 'done')
  assert.equal((await verifyAudit(coordinator.store.read)).intact, true)
  await coordinator[Symbol.asyncDispose]()
})

test('each wrong answer has its own code, and two of five never do', async () => {
  await using cluster = await sealedCluster()
  const { coordinator, deps } = await cluster.start()
  await using _stopped = coordinator
  const ceremony = await openRecovery(coordinator, deps, 'test')
  const sealed = await holdersWay(coordinator, 'active')
  const handler = shareHandler(coordinator.identity, sealed)
  const [alice, bob, carol] = people
  assert.ok(alice && bob && carol)
  const right = (who: Person) =>
    answerOf(who, statementFor(deps, ceremony, who.name), wrappedShare(sealed, who.name).wrapped)
  const resigned = (who: Person, text: string) => ({
    holder: who.name,
    statement: Buffer.from(text),
    signature: sign('sha256', Buffer.from(text), who.privateKey),
  })
  const attempt = (answer: { holder: string; statement: Buffer; signature: Buffer }) =>
    takeAnswer(deps, ceremony.id, answer, handler)
  const text = right(alice).statement.toString()
  await attempt(right(alice))
  const cases: [string, { holder: string; statement: Buffer; signature: Buffer }][] = [
    ['ceremony.answer_duplicate', right(alice)],
    ['ceremony.signature_invalid', { ...right(bob), signature: right(carol).signature }],
    ['ceremony.holder_unknown', { ...right(bob), holder: 'mallory' }],
    ['ceremony.answer_foreign', resigned(bob, text)],
    [
      'ceremony.answer_stale',
      resigned(
        bob,
        right(bob)
          .statement.toString()
          .replace(/^generation 2/m, 'generation 1'),
      ),
    ],
    [
      'ceremony.share_wrong',
      resigned(
        bob,
        right(bob)
          .statement.toString()
          .replace(/^share .*/m, /^share .*/m.exec(text)?.[0] ?? ''),
      ),
    ],
    [
      'ceremony.share_needed',
      resigned(
        bob,
        right(bob)
          .statement.toString()
          .replace(/^share .*/m, 'approve'),
      ),
    ],
    [
      'ceremony.answer_malformed',
      resigned(
        bob,
        right(bob)
          .statement.toString()
          .replace(/^share .*/m, 'share 12'),
      ),
    ],
  ]
  for (const [code, answer] of cases) await assert.rejects(attempt(answer), { code })
  const after = await attempt(right(bob))
  assert.deepEqual(
    after.answered.map(({ holder }) => holder),
    ['alice', 'bob'],
  )
  assert.equal(after.state, 'open')
  await assert.rejects(combine(coordinator, deps, after, sealed), {
    code: 'seal.threshold_not_met',
  })
  assert.equal((await attempt(right(carol))).state, 'met')
})

test('the store alone gives no share away', async () => {
  await using cluster = await sealedCluster()
  const { coordinator, deps } = await cluster.start()
  await using _stopped = coordinator
  const ceremony = await openRecovery(coordinator, deps, 'test')
  const sealed = await holdersWay(coordinator, 'active')
  const alice = people[0]
  assert.ok(alice)
  const answer = answerOf(
    alice,
    statementFor(deps, ceremony, 'alice'),
    wrappedShare(sealed, 'alice').wrapped,
  )
  await takeAnswer(deps, ceremony.id, answer, shareHandler(coordinator.identity, sealed))
  const share = /^share (.*)$/m.exec(answer.statement.toString())?.[1] ?? ''
  const rows = JSON.stringify(
    await coordinator.store.read.selectFrom('answers').selectAll().execute(),
  )
  assert.equal(rows.includes(share), false)
  const kept = await coordinator.store.read
    .selectFrom('answers')
    .select('sealed')
    .executeTakeFirstOrThrow()
  const { plaintext } = await compactDecrypt(kept.sealed, coordinator.identity.key)
  assert.equal(Buffer.from(plaintext).toString('hex'), share)
  assert.equal(createPublicKey(coordinator.identity.key).asymmetricKeyType, 'ec')
})
