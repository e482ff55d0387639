import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, test } from 'node:test'
import { isFault } from '@holdfast/base'
import { thumbprint } from '@holdfast/crypto'
import fc from 'fast-check'
import { failing, labPins, nul, nulls, sealText } from './lab.ts'
import { nullPin } from './null.ts'
import {
  answerRecoveryRequest,
  makeRecoveryRequest,
  parseRecoveryRequest,
  readRecoveryAnswer,
  requestDigest,
} from './offline.ts'
import { createPins } from './pins.ts'

const kinds: Record<string, { publicKey: KeyObject; privateKey: KeyObject }> = {
  'P-256': generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
  X25519: generateKeyPairSync('x25519'),
  'RSA-3072': generateKeyPairSync('rsa', { modulusLength: 3072 }),
}
const { publicKey, privateKey } = generateKeyPairSync('x25519')

async function exchange(technician: KeyObject = publicKey) {
  const text = makeRecoveryRequest(await sealText(nulls(2, 3)), technician)
  const request = parseRecoveryRequest(text)
  return { text, request, answer: await answerRecoveryRequest(labPins, request) }
}

describe('recovery by a colleague', () => {
  for (const [kind, pair] of Object.entries(kinds)) {
    test(`with a technician's ${kind} key`, async () => {
      const { text, request, answer } = await exchange(pair.publicKey)
      assert.equal(text.includes('\n'), false)
      using secret = await readRecoveryAnswer(`${answer}\n`, request, pair.privateKey)
      assert.equal(secret.reveal().toString(), 'hi')
    })
  }

  test('of a private key only the public half leaves the machine', async () => {
    const { text, request, answer } = await exchange(privateKey)
    assert.equal(text.includes(privateKey.export({ format: 'jwk' }).d ?? '-'), false)
    using secret = await readRecoveryAnswer(answer, request, privateKey)
    assert.equal(secret.reveal().toString(), 'hi')
  })

  test('an answer to another request, or for another key, is foreign', async () => {
    const [one, two] = [await exchange(), await exchange()]
    assert.notEqual(requestDigest(one.request), requestDigest(two.request))
    await assert.rejects(readRecoveryAnswer(one.answer, two.request, privateKey), {
      code: 'seal.answer_foreign',
    })
    const other = generateKeyPairSync('x25519')
    await assert.rejects(readRecoveryAnswer(one.answer, one.request, other.privateKey), {
      code: 'seal.answer_foreign',
    })
  })

  test('the TPM of the machine that answers is not asked', async () => {
    const own = createPins({ extra: [{ ...nullPin(), machineBound: true }] })
    const request = (sealed: string) => parseRecoveryRequest(makeRecoveryRequest(sealed, publicKey))
    await assert.rejects(answerRecoveryRequest(own, request(await sealText(nul))), {
      code: 'seal.machine_bound',
    })
    await assert.rejects(answerRecoveryRequest(own, request(await sealText(nulls(1, 2)))), {
      code: 'seal.threshold_not_met',
    })
    assert.equal(createPins().get('tpm2').machineBound, true)
  })

  test('an answer that was changed or cut is refused', async () => {
    const { request, answer } = await exchange()
    const edit = fc.tuple(fc.nat({ max: answer.length - 1 }), fc.constantFrom('', 'A', '.', '_'))
    await fc.assert(
      fc.asyncProperty(edit, async ([at, letter]) => {
        const changed = answer.slice(0, at) + letter + answer.slice(at + 1)
        if (changed === answer) return
        await assert.rejects(readRecoveryAnswer(changed, request, privateKey), {
          code: 'seal.answer_malformed',
        })
      }),
      { numRuns: 60 },
    )
  })

  test('an answer has one text: no other last letter of a part is taken for its own', async () => {
    const { request, answer } = await exchange()
    const letters = Array.from({ length: 64 }, (_, value) =>
      Buffer.of(value << 2)
        .toString('base64url')
        .slice(0, 1),
    )
    const [head = '', key = '', iv = '', ciphertext = '', tag = ''] = answer.split('.')
    for (const letter of letters) {
      const others = [
        [head, key, iv, ciphertext, tag.slice(0, -1) + letter],
        [head, key, iv, ciphertext.slice(0, -1) + letter, tag],
      ].map((parts) => parts.join('.'))
      for (const changed of others.filter((text) => text !== answer)) {
        await assert.rejects(readRecoveryAnswer(changed, request, privateKey), {
          code: 'seal.answer_malformed',
        })
      }
    }
  })

  test('a request that was changed is refused or is another request', async () => {
    const { text, request } = await exchange()
    const edit = fc.tuple(fc.nat({ max: text.length - 1 }), fc.constantFrom('', 'A', '"', '{'))
    fc.assert(
      fc.property(edit, ([at, letter]) => {
        try {
          const changed = text.slice(0, at) + letter + text.slice(at + 1)
          const other = parseRecoveryRequest(changed)
          const same =
            other.sealed === request.sealed &&
            thumbprint(other.technician) === thumbprint(request.technician)
          assert.equal(requestDigest(other) === requestDigest(request), same)
        } catch (error) {
          assert.ok(isFault(error), String(error))
        }
      }),
    )
    for (const bad of ['', '{}', '[]', 'null', '{"holdfast":"recovery-request","version":2}']) {
      assert.throws(
        () => parseRecoveryRequest(bad),
        (error) => isFault(error),
      )
    }
  })

  test('weak technician keys and unusable secrets are refused', async () => {
    const sealed = await sealText(nul)
    const weak = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
    assert.throws(() => makeRecoveryRequest(sealed, weak), { code: 'seal.holder_key_weak' })
    assert.throws(() => makeRecoveryRequest('x', publicKey), { code: 'crypto.jwe_malformed' })
    const closed = parseRecoveryRequest(makeRecoveryRequest(await sealText(failing), publicKey))
    await assert.rejects(answerRecoveryRequest(labPins, closed), { code: 'seal.sealed_malformed' })
  })
})
