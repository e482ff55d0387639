import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { describe, test } from 'node:test'
import { isFault, run, Secret } from '@holdfast/base'
import { inspect } from './inspect.ts'
import { labPins, openText, sealText } from './lab.ts'
import { open } from './open.ts'
import type { HolderAnswer, HolderRequest, Holders } from './person.ts'
import { createPins } from './pins.ts'
import { type Policy, parsePolicy, threshold } from './policy.ts'
import { rehearse } from './rehearse.ts'

interface Pair {
  publicKey: KeyObject
  privateKey: KeyObject
}

const pairs: Record<string, Pair> = {
  'RSA-3072': generateKeyPairSync('rsa', { modulusLength: 3072 }),
  'RSA-4096': generateKeyPairSync('rsa', { modulusLength: 4096 }),
  'P-256': generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
  X25519: generateKeyPairSync('x25519'),
}

const pem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString()
const person = (name: string, key: unknown): Policy => parsePolicy('person', { name, key })

/** Pins with one holder, who answers the same whatever is asked. */
function answering(answer: Holders['answer']) {
  return createPins({ holders: { answer } })
}

describe('a holder', () => {
  for (const [kind, { publicKey, privateKey }] of Object.entries(pairs)) {
    test(`with a ${kind} key opens with it, given as PEM or JWK`, async () => {
      for (const key of [pem(publicKey), publicKey.export({ format: 'jwk' })]) {
        const sealed = await sealText(person('alice', key))
        const seen: HolderRequest[] = []
        const pins = answering(async (request) => {
          seen.push(request)
          return { privateKey }
        })
        assert.equal(await openText(sealed, pins), 'hi')
        const facts = inspect(labPins, sealed)
        assert.equal(facts.label, 'alice')
        assert.deepEqual([seen[0]?.name, seen[0]?.kid], ['alice', facts.kid])
      }
    })
  }

  for (const kind of ['RSA-3072', 'RSA-4096']) {
    test(`with ${kind} needs nothing but openssl`, async () => {
      const { publicKey, privateKey } = pairs[kind] as Pair // one of the above
      const sealed = await sealText(person('alice', pem(publicKey)))
      using keyFile = Secret.copy(privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
      const padding = ['-pkeyopt', 'rsa_padding_mode:oaep', '-pkeyopt', 'rsa_oaep_md:sha256']
      const pins = answering(async ({ wrapped }) => {
        const args = ['pkeyutl', '-decrypt', '-inkey', keyFile, ...padding]
        const { stdout } = await run('openssl', args, { input: wrapped })
        return { contentKey: Secret.take(stdout) }
      })
      assert.equal(await openText(sealed, pins), 'hi')
    })
  }

  test('whose key is weak is refused, with what would do', async () => {
    const weak: Record<string, KeyObject> = {
      'RSA of 2048 bits': generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey,
      'RSA with the exponent 3': generateKeyPairSync('rsa', {
        modulusLength: 3072,
        publicExponent: 3,
      }).publicKey,
      'the curve secp384r1': generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).publicKey,
      'the curve secp256k1': generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey,
      'a key of type ed25519': generateKeyPairSync('ed25519').publicKey,
      'a key of type rsa-pss': generateKeyPairSync('rsa-pss', { modulusLength: 3072 }).publicKey,
    }
    for (const [what, key] of Object.entries(weak)) {
      await assert.rejects(sealText(person('bob', pem(key))), {
        code: 'seal.holder_key_weak',
        message: `the key of bob is ${what}`,
        hint: /RSA of at least 3072 bits, P-256 or X25519/,
      })
    }
  })

  test('whose configuration is none is refused, and a private key never quoted', async () => {
    const { publicKey, privateKey } = pairs['P-256'] as Pair // one of the above
    const secret = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    const jwk = privateKey.export({ format: 'jwk' })
    const keys = [secret, jwk, 'x', '', 7, null, {}, { kty: 'EC' }, undefined]
    for (const key of keys) {
      await assert.rejects(sealText(person('bob', key)), (error: unknown) => {
        assert.ok(isFault(error, 'seal.policy_invalid'))
        const text = JSON.stringify(error) + String(error)
        assert.equal(
          text.includes(jwk.d ?? '-') || text.includes(secret.split('\n')[1] ?? '-'),
          false,
        )
        return true
      })
    }
    for (const name of ['', ' x', 'a\nb', 'a\u001b[31m', 'x'.repeat(65), 7, undefined]) {
      const policy = parsePolicy('person', { name, key: pem(publicKey) })
      await assert.rejects(sealText(policy), { code: 'seal.policy_invalid' })
    }
    const extra = parsePolicy('person', { name: 'bob', key: pem(publicKey), extra: 1 })
    await assert.rejects(sealText(extra), { code: 'seal.policy_invalid' })
    const low = { kty: 'OKP', crv: 'X25519', x: Buffer.alloc(32).toString('base64url') }
    await assert.rejects(sealText(person('bob', low)), (error) => isFault(error))
  })

  test('who gives the wrong key or share is told so; who is absent is not a failure', async () => {
    const alice = pairs['RSA-3072'] as Pair // one of the above
    const sealed = await sealText(person('alice', pem(alice.publicKey)))
    const wrong: HolderAnswer[] = [
      { privateKey: (pairs['RSA-4096'] as Pair).privateKey },
      { privateKey: (pairs.X25519 as Pair).privateKey },
      { privateKey: alice.publicKey },
      { contentKey: Secret.random(32) },
      { contentKey: Secret.random(16) },
    ]
    for (const answer of wrong) {
      const opening = open(
        answering(async () => answer),
        sealed,
      )
      await assert.rejects(opening, {
        code: 'seal.share_wrong',
        message: 'what holder alice gave does not open their share',
      })
    }
    const nobody = answering(async () => undefined)
    await assert.rejects(open(nobody, sealed), { code: 'seal.holder_absent' })
    await assert.rejects(open(labPins, sealed), { code: 'seal.holder_absent' })
    assert.equal((await rehearse(nobody, sealed)).state, 'not_tried')
    const unasked = answering(() => assert.fail('somebody was asked'))
    assert.equal((await rehearse(unasked, sealed, { people: false })).state, 'not_tried')
  })

  test('two of three holders', async () => {
    const kinds = ['RSA-3072', 'P-256', 'X25519']
    const policy = threshold(
      2,
      kinds.map((kind) => person(kind, pem((pairs[kind] as Pair).publicKey))),
    )
    const sealed = await sealText(policy)
    for (const absent of kinds) {
      const pins = answering(async ({ name }) =>
        name === absent ? undefined : { privateKey: (pairs[name] as Pair).privateKey },
      )
      assert.equal(await openText(sealed, pins), 'hi')
    }
    const alone = answering(async ({ name }) =>
      name === 'P-256' ? { privateKey: (pairs[name] as Pair).privateKey } : undefined,
    )
    await assert.rejects(open(alone, sealed), {
      code: 'seal.threshold_not_met',
      message: /person:RSA-3072: holder RSA-3072 has not answered/,
    })
    const slow = answering(async ({ name }, signal) => {
      if (name === 'P-256') await once(signal, 'abort')
      return undefined
    })
    // What a holder brings who is not waited for any more is not called nothing.
    await assert.rejects(open(slow, sealed), {
      message: /^2 of 3 are needed, too many did not open: person:RSA-3072: /,
    })
  })
})
