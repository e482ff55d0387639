import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { describe, test } from 'node:test'
import { isFault, run } from '@holdfast/base'
import fc from 'fast-check'
import { curveNames, curveOf, decodePoint, toBytes } from './curve.ts'
import { generateEcKey } from './exchange.ts'
import {
  type AnyJwk,
  bareJwk,
  encodedPointOf,
  jwkOf,
  parseEcPublicJwk,
  pointOf,
  thumbprint,
  thumbprintHashes,
  thumbprints,
} from './jwk.ts'

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' })

describe('thumbprints', () => {
  test('are those of `jose jwk thp`, for five hashes and three types of key', async () => {
    const keys: AnyJwk[] = [
      ...curveNames.map((name) => ({ ...bareJwk(generateEcKey(name)), alg: 'ECMR' })),
      { ...rsa, kty: 'RSA', extra: [1] },
      { kty: 'oct', k: 'c2VjcmV0', alg: 'A256GCM' },
    ]
    for (const hash of thumbprintHashes) {
      const input = JSON.stringify({ keys })
      const { stdout } = await run('jose', ['jwk', 'thp', '-i-', '-a', hash], { input })
      assert.deepEqual(
        stdout.toString().trim().split('\n'),
        keys.map((key) => thumbprint(key, hash)),
      )
    }
  })

  test('the example of RFC 7638 section 3.1', () => {
    const n =
      '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP' +
      'ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY' +
      '368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f' +
      'M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw'
    const key = { kty: 'RSA', n, e: 'AQAB', alg: 'RS256', kid: '2011-04-29' }
    assert.equal(thumbprint(key), 'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs')
  })

  test('of an unknown or incomplete key are refused', () => {
    for (const kty of ['constructor', '__proto__', 'toString', 'ec', '']) {
      assert.throws(() => thumbprint({ kty }), { code: 'crypto.jwk_malformed' }, kty)
    }
    for (const key of [
      { kty: 'EC', crv: 'P-256', x: 'AA' },
      { kty: 'oct' },
      { kty: 'RSA', n: 1 },
    ]) {
      assert.throws(() => thumbprints(key), { code: 'crypto.jwk_malformed' })
    }
  })
})

describe('public keys from outside', () => {
  for (const name of curveNames) {
    test(`a point of ${name} survives the round trip; short coordinates are padded`, () => {
      const key = bareJwk(generateEcKey(name))
      assert.deepEqual(jwkOf(pointOf(key), name), key)
      const { size, p } = curveOf(name)
      const stripped = Buffer.from(key.x, 'base64url')
      const first = stripped.findIndex((byte) => byte !== 0)
      const short = { ...key, x: stripped.subarray(first).toString('base64url') }
      assert.deepEqual(pointOf(short), pointOf(key))
      assert.deepEqual(decodePoint(encodedPointOf(short)), pointOf(key))
      const wide = Buffer.concat([Buffer.alloc(1), stripped]).toString('base64url')
      const { x } = pointOf(key)
      for (const bad of ['', `${key.x}=`, `${key.x}\n`, wide, key.y, 'AA']) {
        for (const read of [pointOf, encodedPointOf]) {
          assert.throws(
            () => read({ ...key, x: bad }),
            (error) => {
              assert.ok(isFault(error))
              assert.match(error.code, /^crypto\.(jwk_malformed|point_invalid)$/)
              return true
            },
          )
        }
      }
      if (x + p < 2n ** BigInt(size * 8)) {
        const same = toBytes(x + p, size).toString('base64url') // x + p names the same residue
        for (const read of [pointOf, encodedPointOf]) {
          assert.throws(() => read({ ...key, x: same }), { code: 'crypto.point_invalid' })
        }
      }
    })
  }

  test('anything else is a fault, never another error', () => {
    const good = bareJwk(generateEcKey('P-256'))
    const member = fc.constantFrom('kty', 'crv', 'x', 'y')
    const value = fc.oneof(
      fc.anything(),
      fc.constantFrom('constructor', '__proto__', 'P-384', 'oct', good.x, good.y),
    )
    fc.assert(
      fc.property(member, value, (name, other) => {
        if (other === good[name as keyof typeof good]) return // one of the four above
        assert.throws(
          () => parseEcPublicJwk({ ...good, [name]: other }, 'it'),
          (error) => {
            assert.ok(isFault(error), String(error))
            return true
          },
        )
      }),
    )
    fc.assert(
      fc.property(fc.anything(), (other) => {
        assert.throws(() => parseEcPublicJwk(other, 'it'), { code: 'crypto.jwk_malformed' })
      }),
    )
  })

  test('only the members that matter are kept, a private one never', () => {
    const key = { ...generateEcKey('P-521'), alg: 'ECMR', key_ops: ['deriveKey', 7], other: true }
    const { d: _d, other: _other, ...rest } = key
    assert.deepEqual(parseEcPublicJwk(key, 'it'), { ...rest, key_ops: ['deriveKey'] })
  })
})
