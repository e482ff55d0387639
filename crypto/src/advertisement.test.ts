import assert from 'node:assert/strict'
import { createHmac, createSign, generateKeyPairSync } from 'node:crypto'
import { describe, test } from 'node:test'
import { isFault, type JsonObject, run, Secret } from '@holdfast/base'
import fc from 'fast-check'
import { GeneralSign } from 'jose'
import { isSignedBy, signAdvertisement, verifyAdvertisement } from './advertisement.ts'
import { curveNames } from './curve.ts'
import { generateEcKey } from './exchange.ts'
import { type AnyJwk, bareJwk, type EcPrivateJwk, thumbprint, thumbprintHashes } from './jwk.ts'
import vectors from './vectors/tang.json' with { type: 'json' }

const verifying = (key: EcPrivateJwk) => ({ ...bareJwk(key), alg: 'ES', key_ops: ['verify'] })
const deriving = (key: EcPrivateJwk) => ({ ...bareJwk(key), alg: 'ECMR', key_ops: ['deriveKey'] })
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

const signer = generateEcKey('P-256')
const exchange = generateEcKey('P-256')
const plain: JsonObject[] = [verifying(signer), deriving(exchange)]

/** Flattened JWS over these keys with whatever header and signature. */
function forged(keys: unknown, head: JsonObject, sign: (input: string) => string): JsonObject {
  const [payload, head64] = [encode({ keys }), encode(head)]
  return { payload, protected: head64, signature: sign(`${head64}.${payload}`) }
}

async function refused(jws: string | JsonObject, code: string, known: readonly AnyJwk[] = []) {
  await assert.rejects(verifyAdvertisement(jws, known), { code })
}

describe('a real advertisement', () => {
  test('of tangd is believed; its signing key signed it under any thumbprint', async () => {
    const { advertisement, signingKey, exchangeKey } = vectors.tang
    const read = await verifyAdvertisement(advertisement)
    assert.deepEqual(read.signedBy, [thumbprint(signingKey)])
    assert.deepEqual(
      read.exchangeKeys.map((key) => thumbprint(key)),
      [thumbprint(exchangeKey)],
    )
    for (const hash of thumbprintHashes) {
      assert.ok(isSignedBy(read, [thumbprint(signingKey, hash)]))
    }
    assert.equal(isSignedBy(read, [thumbprint(exchangeKey), '']), false)
    assert.equal(isSignedBy(read, []), false)
  })

  test('no change of a letter is believed', async () => {
    const text = JSON.stringify(vectors.tang.advertisement)
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: text.length - 1 }),
        fc.constantFrom('A', '7', '"', '}', ''),
        async (at, letter) => {
          const changed = text.slice(0, at) + letter + text.slice(at + 1)
          try {
            const read = await verifyAdvertisement(changed)
            assert.equal(changed, text)
            assert.ok(read)
          } catch (error) {
            assert.ok(isFault(error), String(error))
          }
        },
      ),
      { numRuns: 200 },
    )
  })
})

describe('signing', () => {
  for (const name of curveNames) {
    test(`what we sign with ${name} is believed here and by \`jose jws ver\``, async () => {
      const keys = [generateEcKey(name), generateEcKey('P-256')]
      for (const count of [1, 2]) {
        const signers = keys.slice(0, count)
        const text = await signAdvertisement([...signers.map(verifying), plain[1] ?? {}], signers)
        assert.equal('signatures' in JSON.parse(text), count > 1)
        const read = await verifyAdvertisement(text)
        assert.deepEqual(
          read.signedBy,
          signers.map((key) => thumbprint(key)),
        )
        using file = Secret.copy(JSON.stringify({ keys: signers.map((key) => bareJwk(key)) }))
        const args = ['jws', 'ver', '-i-', '-k', file, '-a', '-O-']
        const { stdout } = await run('jose', args, { input: text })
        assert.deepEqual(JSON.parse(stdout.toString()).keys, read.keys)
      }
    })
  }

  test('needs a signing key', async () => {
    await assert.rejects(signAdvertisement(plain, []), { code: 'crypto.advertisement_malformed' })
  })
})

describe('rotation', () => {
  const fresh = generateEcKey('P-256')

  test('the old key vouches for the new only where it is known', async () => {
    const text = await signAdvertisement([verifying(fresh), deriving(exchange)], [fresh, signer])
    const unknown = await verifyAdvertisement(text)
    assert.deepEqual(unknown.signedBy, [thumbprint(fresh)])
    const known = [verifying(signer)]
    const read = await verifyAdvertisement(text, known)
    assert.ok(isSignedBy(read, [thumbprint(signer)], known))
    assert.equal(isSignedBy(read, [thumbprint(signer)]), false)
  })

  test('an exchange key vouches for nothing, even when it is known', async () => {
    const text = await signAdvertisement([verifying(fresh), deriving(exchange)], [fresh, exchange])
    const known = [deriving(exchange)]
    const read = await verifyAdvertisement(text, known)
    assert.deepEqual(read.signedBy, [thumbprint(fresh)])
    assert.equal(isSignedBy(read, [thumbprint(exchange)], known), false)
  })

  test('odd keys among the known ones do no harm', async () => {
    const text = await signAdvertisement(plain, [signer])
    const odd = [{ kty: 'oct' }, { kty: 'RSA' }, { kty: 'EC', crv: 'constructor' }]
    assert.ok(await verifyAdvertisement(text, odd))
  })
})

describe('what is not believed', () => {
  test('one of two advertised keys did not sign', async () => {
    const second = generateEcKey('P-521')
    const keys = [verifying(signer), verifying(second), deriving(exchange)]
    for (const signers of [[signer], [second]]) {
      await refused(await signAdvertisement(keys, signers), 'crypto.advertisement_unsigned')
    }
    assert.ok(await verifyAdvertisement(await signAdvertisement(keys, [second, signer])))
  })

  test('signed by a stranger alone', async () => {
    const text = await signAdvertisement(plain, [generateEcKey('P-256')])
    await refused(text, 'crypto.advertisement_unsigned')
  })

  test('alg none, and HS256 with the public key for a secret', async () => {
    await refused(
      forged(plain, { alg: 'none' }, () => ''),
      'crypto.advertisement_unsigned',
    )
    const hmac = (input: string) =>
      createHmac('sha256', Buffer.from(signer.x, 'base64url')).update(input).digest('base64url')
    await refused(forged(plain, { alg: 'HS256' }, hmac), 'crypto.advertisement_unsigned')
    await refused(
      forged([{ kty: 'oct', key_ops: ['verify'] }, deriving(exchange)], { alg: 'HS256' }, hmac),
      'crypto.advertisement_malformed',
    )
  })

  test('the signature of another algorithm of the same key', async () => {
    const read = JSON.parse(await signAdvertisement(plain, [signer]))
    const other = { ...read, protected: encode({ alg: 'ES384' }) }
    await refused(other, 'crypto.advertisement_unsigned')
  })

  test('private parts, no keys, no exchange key, no signing key', async () => {
    const leaking = [{ ...plain[0], d: signer.d }, plain[1] ?? {}]
    for (const keys of [leaking, [], plain.slice(0, 1), [{ kty: 'oct', k: 'AA' }, ...plain]]) {
      await refused(await signAdvertisement(keys, [signer]), 'crypto.advertisement_malformed')
    }
    await refused(
      await signAdvertisement(plain.slice(1), [signer]),
      'crypto.advertisement_malformed',
    )
  })

  test('a key off its curve', async () => {
    const off = [plain[0] ?? {}, { ...plain[1], y: exchange.x }]
    await refused(await signAdvertisement(off, [signer]), 'crypto.advertisement_malformed')
  })

  test('so many keys or signatures that verifying would take minutes', async () => {
    const many = Array.from({ length: 17 }, () => generateEcKey('P-256'))
    await refused(
      await signAdvertisement([...many.map(verifying), plain[1] ?? {}], [signer]),
      'crypto.advertisement_malformed',
    )
    const read: JsonObject = JSON.parse(await signAdvertisement(plain, [signer]))
    const { payload, ...one } = read
    const jws = { payload, signatures: Array.from({ length: 33 }, () => one) }
    await refused(jws, 'crypto.advertisement_malformed')
  })

  test('anything else is a fault, never another error', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.json()), async (text) => {
        await refused(text, 'crypto.advertisement_malformed')
      }),
    )
    const member = fc.constantFrom('payload', 'protected', 'signature', 'signatures')
    const read: JsonObject = JSON.parse(await signAdvertisement(plain, [signer]))
    await fc.assert(
      fc.asyncProperty(member, fc.anything(), async (name, value) => {
        if (value === undefined && name === 'signatures') return
        try {
          await verifyAdvertisement({ ...read, [name]: value })
          assert.ok(
            name === 'signatures' && !Array.isArray(value),
            'only a non-list is passed over',
          )
        } catch (error) {
          assert.ok(isFault(error), String(error))
        }
      }),
      { numRuns: 200 },
    )
  })
})

describe('keys of other types', () => {
  test('are carried along, neither required nor believed', async () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const rsaJwk = { ...rsa.publicKey.export({ format: 'jwk' }), alg: 'RS256', key_ops: ['verify'] }
    const k256 = { kty: 'EC', crv: 'secp256k1', x: 'AA', y: 'AA', key_ops: ['verify'] }
    const hmac = { kty: 'oct', alg: 'HS256', key_ops: [] }
    const keys = [...plain, rsaJwk, k256, hmac]
    const read = await verifyAdvertisement(await signAdvertisement(keys, [signer]))
    assert.equal(read.keys.length, 5)
    assert.deepEqual(read.signedBy, [thumbprint(signer)])
    const head = encode({ alg: 'RS256' })
    const payload = encode({ keys: [rsaJwk, deriving(exchange)] })
    const signature = createSign('sha256').update(`${head}.${payload}`).sign(rsa.privateKey)
    const jws = { payload, protected: head, signature: signature.toString('base64url') }
    await refused(jws, 'crypto.advertisement_malformed')
  })

  test('an RSA signature beside the right one, as a tangd with such a key makes it', async () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const rsaJwk = { ...rsa.publicKey.export({ format: 'jwk' }), alg: 'RS256', key_ops: ['verify'] }
    const both = JSON.parse(await signAdvertisement([...plain, rsaJwk], [signer]))
    const jws = new GeneralSign(Buffer.from(both.payload, 'base64url'))
    jws.addSignature(rsa.privateKey).setProtectedHeader({ alg: 'RS256' })
    const { signatures } = await jws.sign()
    const { payload, ...ours } = both
    assert.ok(await verifyAdvertisement({ payload, signatures: [...signatures, ours] }))
  })
})
