import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, test } from 'node:test'
import { isFault, run, Secret } from '@holdfast/base'
import fc from 'fast-check'
import { CompactEncrypt, compactDecrypt } from 'jose'
import { curveNames, curveOf, toBytes } from './curve.ts'
import { exchangeKey, generateEcKey } from './exchange.ts'
import {
  compactJwe,
  decryptJwe,
  deriveContentKey,
  encryptJwe,
  flattenJwe,
  jweLimit,
  parseJwe,
} from './jwe.ts'
import { bareJwk, type EcPrivateJwk, parseEcPublicJwk, pointOf } from './jwk.ts'
import vectors from './vectors/tang.json' with { type: 'json' }

const direct = { alg: 'dir', clevis: { pin: 'null' } }

/** Opens an ECDH-ES form with the private key, by way of the shared point. */
function openWith(sealed: string, jwk: EcPrivateJwk): string {
  const jwe = parseJwe(sealed)
  using key = exchangeKey(jwk)
  const { x } = key.multiply(pointOf(parseEcPublicJwk(jwe.header.epk, 'epk')))
  using shared = Secret.take(toBytes(x, curveOf(jwk.crv).size))
  using contentKey = deriveContentKey(shared, jwe.header)
  using plaintext = decryptJwe(jwe, contentKey)
  return plaintext.reveal().toString()
}

describe('what clevis sealed', () => {
  const { tang } = vectors
  const server = { ...tang.exchangeKey, kty: 'EC', crv: 'P-256' } as EcPrivateJwk // a P-256 key

  test('has the recorded shared secret, content key and plaintext', () => {
    const jwe = parseJwe(tang.sealed)
    using key = exchangeKey(server)
    const point = key.multiply(pointOf(parseEcPublicJwk(jwe.header.epk, 'epk')))
    using shared = Secret.take(toBytes(point.x, 32))
    assert.equal(shared.reveal().toString('hex'), tang.sharedSecret)
    using contentKey = deriveContentKey(shared, jwe.header)
    assert.equal(contentKey.reveal().toString('hex'), tang.contentKey)
    assert.equal(decryptJwe(jwe, contentKey).reveal().toString(), tang.plaintext)
  })
})

describe('ECDH-ES', () => {
  test('the shared secret of RFC 7518 appendix C', () => {
    const alice: EcPrivateJwk = {
      kty: 'EC',
      crv: 'P-256',
      x: 'gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0',
      y: 'SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps',
      d: '0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo',
    }
    const bob: EcPrivateJwk = {
      kty: 'EC',
      crv: 'P-256',
      x: 'weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ',
      y: 'e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck',
      d: 'VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw',
    }
    const z = '9e56d91d817135d372834283bf84269cfb316ea3da806a48f6daa7798cfe90c4'
    using forward = exchangeKey(alice)
    using backward = exchangeKey(bob)
    assert.equal(toBytes(forward.multiply(pointOf(bob)).x, 32).toString('hex'), z)
    assert.equal(toBytes(backward.multiply(pointOf(alice)).x, 32).toString('hex'), z)
  })

  for (const name of curveNames) {
    test(`opens what another library sealed on ${name}, party names included`, async () => {
      const jwk = generateEcKey(name)
      const publicKey = createPublicKey({ key: { ...bareJwk(jwk) }, format: 'jwk' })
      const encoder = new TextEncoder()
      for (const parties of [{}, { apu: 'Alice', apv: 'Bob' }, { apv: 'Bob' }]) {
        const named = Object.entries(parties).map(([key, text]) => [key, encoder.encode(text)])
        const sealed = await new CompactEncrypt(encoder.encode('hello'))
          .setProtectedHeader({ alg: 'ECDH-ES', enc: 'A256GCM' })
          .setKeyManagementParameters(Object.fromEntries(named))
          .encrypt(publicKey)
        assert.equal(openWith(sealed, jwk), 'hello')
      }
    })

    test(`what we seal on ${name} opens with \`jose jwe dec\` and the other way round`, async () => {
      const jwk = generateEcKey(name)
      const publicKey = createPublicKey({ key: { ...bareJwk(jwk) }, format: 'jwk' })
      using plaintext = Secret.copy('hello')
      const sealed = await encryptJwe({ alg: 'ECDH-ES', note: [1] }, publicKey, plaintext)
      assert.equal(openWith(sealed, jwk), 'hello')
      using keyFile = Secret.copy(JSON.stringify(jwk))
      const opened = await run('jose', ['jwe', 'dec', '-i-', '-k', keyFile], { input: sealed })
      assert.equal(opened.stdout.toString(), 'hello')
      const template = '{"protected":{"alg":"ECDH-ES","enc":"A256GCM"}}'
      using publicFile = Secret.copy(JSON.stringify(bareJwk(jwk)))
      const args = ['jwe', 'enc', '-i', template, '-k', publicFile, '-I-', '-c']
      const made = await run('jose', args, { input: 'hello' })
      assert.equal(openWith(made.stdout.toString(), jwk), 'hello')
    })
  }

  test('a key that nothing can be encrypted for is a fault', async () => {
    using plaintext = Secret.copy('hello')
    const low = { kty: 'OKP', crv: 'X25519', x: Buffer.alloc(32).toString('base64url') }
    const key = createPublicKey({ key: low, format: 'jwk' })
    const sealing = encryptJwe({ alg: 'ECDH-ES' }, key, plaintext)
    await assert.rejects(sealing, { code: 'crypto.jwe_unsupported' })
  })
})

describe('content encryption', () => {
  test('round trip with other implementations, any plaintext', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
        using key = Secret.random(32)
        using plaintext = Secret.copy(bytes)
        const sealed = await encryptJwe(direct, key, plaintext)
        using opened = decryptJwe(parseJwe(sealed), key)
        assert.deepEqual(new Uint8Array(opened.reveal()), bytes)
        assert.deepEqual((await compactDecrypt(sealed, key.reveal())).plaintext, bytes)
      }),
      { numRuns: 30 },
    )
  })

  test('a change anywhere is a fault and gives no plaintext', async () => {
    using key = Secret.random(32)
    using plaintext = Secret.copy('the plaintext')
    const sealed = await encryptJwe(direct, key, plaintext)
    const edit = fc.record({
      at: fc.nat({ max: sealed.length - 1 }),
      letter: fc.constantFrom('A', 'B', '_', '.', '=', '\u0000', 'é'),
      cut: fc.constantFrom(0, 1, 5),
    })
    fc.assert(
      fc.property(edit, ({ at, letter, cut }) => {
        const changed = sealed.slice(0, at) + letter + sealed.slice(at + cut)
        if (changed === sealed) return
        try {
          decryptJwe(parseJwe(changed), key)
          assert.fail(`it opened: ${changed}`)
        } catch (error) {
          assert.ok(isFault(error), String(error))
          assert.equal(JSON.stringify(error).includes('plaintext'), false)
        }
      }),
      { numRuns: 300 },
    )
    for (let length = 0; length < sealed.length; length += 1) {
      assert.throws(
        () => decryptJwe(parseJwe(sealed.slice(0, length)), key),
        (error) => isFault(error),
      )
    }
  })

  test('a wrong or short key is a fault', async () => {
    using key = Secret.random(32)
    using other = Secret.random(32)
    using short = Secret.random(16)
    const jwe = parseJwe(await encryptJwe(direct, key, Secret.copy('x')))
    for (const wrong of [other, short]) {
      assert.throws(() => decryptJwe(jwe, wrong), { code: 'crypto.jwe_wrong_key' })
    }
  })
})

describe('parsing', () => {
  const iv = 'A'.repeat(16)
  const tag = `${'A'.repeat(21)}A`
  const form = (header: unknown, key = '') =>
    `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${key}.${iv}.AAAA.${tag}`

  test('takes an unsorted header and space around it', () => {
    const header = { enc: 'A256GCM', alg: 'dir' }
    assert.deepEqual(parseJwe(`\n ${form(header)}\n`).header, header)
  })

  test('refuses what it does not do', () => {
    const unsupported = [
      { alg: 'dir' },
      { alg: 'dir', enc: 'A128GCM' },
      { alg: 'dir', enc: 'A256GCM', zip: 'DEF' },
      { alg: 'dir', enc: 'A256GCM', crit: ['b64'] },
    ]
    for (const header of unsupported) {
      assert.throws(() => parseJwe(form(header)), { code: 'crypto.jwe_unsupported' })
    }
    for (const alg of ['dir', 'ECDH-ES']) {
      assert.throws(() => parseJwe(form({ alg, enc: 'A256GCM' }, 'AAAA')), {
        code: 'crypto.jwe_malformed',
      })
    }
    for (const header of [null, [], 'x', 7]) {
      assert.throws(() => parseJwe(form(header)), { code: 'crypto.jwe_malformed' })
    }
    assert.throws(() => parseJwe('A'.repeat(jweLimit + 1)), { code: 'crypto.jwe_too_large' })
    const polluted = Buffer.from('{"enc":"A256GCM","__proto__":{"zip":1}}').toString('base64url')
    assert.doesNotThrow(() => parseJwe(`${polluted}..${iv}.AAAA.${tag}`))
  })

  test('anything is a sealed secret or a fault', () => {
    fc.assert(
      fc.property(fc.string(), fc.array(fc.base64String(), { maxLength: 6 }), (text, parts) => {
        for (const candidate of [text, parts.join('.')]) {
          try {
            parseJwe(candidate)
          } catch (error) {
            assert.ok(isFault(error), String(error))
          }
        }
      }),
    )
  })

  test('compact and flattened forms are the same thing', () => {
    const compact = form({ alg: 'dir', enc: 'A256GCM' })
    assert.equal(compactJwe(flattenJwe(compact)), compact)
    const { encrypted_key: _none, ...rest } = flattenJwe(compact)
    assert.equal(compactJwe(rest), compact)
  })
})

test('RSA-OAEP-256 opens with the standard library', async () => {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 3072 })
  using plaintext = Secret.copy('hello')
  const sealed = await encryptJwe({ alg: 'RSA-OAEP-256' }, publicKey, plaintext)
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  const opened = await compactDecrypt(sealed, createPrivateKey(pem))
  assert.equal(Buffer.from(opened.plaintext).toString(), 'hello')
})
