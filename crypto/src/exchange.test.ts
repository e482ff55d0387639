import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isFault } from '@holdfast/base'
import { p256, p384, p521 } from '@noble/curves/nist.js'
import fc from 'fast-check'
import { type CurveName, curveNames, curveOf, negate, toBytes, toNumber } from './curve.ts'
import { blind, exchangeKey, generateEcKey } from './exchange.ts'
import { bareJwk, type EcPrivateJwk, encodedPointOf, jwkOf, pointOf } from './jwk.ts'
import vectors from './vectors/tang.json' with { type: 'json' }

const oracles = { 'P-256': p256, 'P-384': p384, 'P-521': p521 }

function privateJwk(crv: CurveName, scalar: bigint): EcPrivateJwk {
  const point = oracles[crv].Point.BASE.multiply(scalar).toAffine()
  const d = toBytes(scalar, curveOf(crv).size).toString('base64url')
  return { ...jwkOf(point, crv), d }
}

/** Scalars whose bits or bytes stand at the edges. */
function edges(n: bigint, size: number): bigint[] {
  const bits = BigInt(size * 8)
  const sparse = [1n, 2n, 3n, 4n, 15n, 16n, 17n, 2n ** 64n, 2n ** 128n + 1n, 2n ** (bits / 2n)]
  const narrow = [n >> 8n, n >> 16n, (1n << (bits - 24n)) - 1n] // leading zero bytes
  return [...sparse, ...narrow, n - 2n, n - 3n, n >> 1n, (n >> 1n) + 1n]
}

const text = (bytes: Buffer): string => bytes.toString('base64url')

for (const name of curveNames) {
  const { n, size } = curveOf(name)
  const { Point } = oracles[name]
  const scalar = fc.bigInt({ min: 1n, max: n - 2n })
  const anyScalar = fc.oneof(scalar, fc.constantFrom(...edges(n, size)))

  describe(`exchange on ${name}`, () => {
    test('multiplies as another implementation does', () => {
      fc.assert(
        fc.property(anyScalar, anyScalar, (s, base) => {
          const point = Point.BASE.multiply(base)
          using key = exchangeKey(privateJwk(name, s))
          const product = point.multiply(s).toAffine()
          assert.deepEqual(key.multiply(point.toAffine()), product)
          const { x, y } = key.multiplyEncoded(encodedPointOf(jwkOf(point.toAffine(), name)))
          assert.deepEqual([x, y].map(Buffer.from), [
            toBytes(product.x, size),
            toBytes(product.y, size),
          ])
        }),
        { numRuns: 25 },
      )
    })

    test('every scalar at an edge, on points with tiny x', () => {
      const points = [1n, 2n, 3n, 5n, 6n, 8n, 9n, 255n].flatMap((x) => {
        try {
          const encoded = Buffer.concat([Buffer.of(2), toBytes(x, size)])
          return [Point.fromBytes(encoded)]
        } catch {
          return [] // no point has this x
        }
      })
      assert.ok(points.length >= 2)
      for (const s of edges(n, size)) {
        using key = exchangeKey(privateJwk(name, s))
        for (const point of points.slice(0, 2)) {
          assert.deepEqual(key.multiply(point.toAffine()), point.multiply(s).toAffine(), `${s}`)
        }
      }
    })

    test('the largest scalar is right or refused', () => {
      try {
        using key = exchangeKey(privateJwk(name, n - 1n))
        const base = Point.BASE.toAffine()
        assert.deepEqual(key.multiply(base), negate(base, curveOf(name)))
      } catch (error) {
        assert.ok(isFault(error, 'crypto.jwk_malformed'))
      }
    })

    test('private keys that are not are refused', () => {
      const good = generateEcKey(name)
      const wrongs = [
        { ...good, d: toBytes(0n, size).toString('base64url') },
        { ...good, d: toBytes(n, size).toString('base64url') },
        { ...good, d: Buffer.alloc(size, 0xff).toString('base64url') },
        { ...good, d: good.d.slice(4) },
        { ...good, d: `${good.d}AAAA` },
        { ...good, d: `${good.d}=` },
        { ...good, d: generateEcKey(name).d },
        { ...generateEcKey(name), d: good.d },
      ]
      for (const wrong of wrongs) {
        assert.throws(() => exchangeKey(wrong), { code: 'crypto.jwk_malformed' })
      }
      assert.throws(() => exchangeKey({ ...good, y: good.x }), { code: 'crypto.point_invalid' })
    })

    test('refuses to multiply a point off the curve', () => {
      using key = exchangeKey(generateEcKey(name))
      const { x, y } = pointOf(generateEcKey(name))
      for (const point of [
        { x, y: y + 1n },
        { x: 0n, y: 0n },
        { x: y, y: x },
      ]) {
        assert.throws(() => key.multiply(point))
        const encoded = { x: toBytes(point.x, size), y: toBytes(point.y, size) }
        assert.throws(() => key.multiplyEncoded(encoded))
        const jwk = { kty: 'EC' as const, crv: name, x: text(encoded.x), y: text(encoded.y) }
        assert.throws(() => encodedPointOf(jwk), { code: 'crypto.point_invalid' })
      }
    })

    test('a recovery gives what was provisioned; the server sees a fresh point each time', () => {
      const server = generateEcKey(name)
      const client = generateEcKey(name)
      using serverKey = exchangeKey(server)
      const expected = serverKey.multiply(pointOf(client)).x
      const seen = new Set<string>()
      for (let turn = 0; turn < 3; turn += 1) {
        const attempt = blind(bareJwk(client), bareJwk(server))
        seen.add(attempt.request.x).add(client.x)
        const reply = jwkOf(serverKey.multiply(pointOf(attempt.request)), name)
        using shared = attempt.unblind(reply)
        assert.equal(shared.length, size)
        assert.equal(toNumber(shared.reveal()), expected)
      }
      assert.equal(seen.size, 4)
    })

    test('a reply that lies gives another secret or a fault', () => {
      const [server, client] = [generateEcKey(name), generateEcKey(name)]
      using key = exchangeKey(server)
      const expected = key.multiply(pointOf(client)).x
      const attempt = blind(bareJwk(client), bareJwk(server))
      const right = key.multiply(pointOf(attempt.request))
      const lies = [negate(right, curveOf(name)), pointOf(attempt.request), pointOf(server)]
      for (const lie of lies) {
        using shared = attempt.unblind(jwkOf(lie, name))
        assert.notEqual(toNumber(shared.reveal()), expected)
      }
      const other = generateEcKey(name === 'P-256' ? 'P-384' : 'P-256')
      assert.throws(() => attempt.unblind(other), { code: 'crypto.point_invalid' })
      const good = jwkOf(right, name)
      for (const wrong of [
        { ...good, y: good.x },
        { ...good, x: 'AA', y: 'AA' },
      ]) {
        assert.throws(() => attempt.unblind(wrong), { code: 'crypto.point_invalid' })
      }
      assert.throws(() => blind(bareJwk(client), other), { code: 'crypto.point_invalid' })
    })
  })
}

describe('recorded recoveries of a real tangd', () => {
  for (const { curve, key, request, reply } of vectors.recoveries) {
    test(`our reply on ${curve} is the same, byte for byte`, () => {
      const jwk = { ...key, kty: 'EC', crv: curve as CurveName } as EcPrivateJwk // both are EC
      using own = exchangeKey(jwk)
      const point = pointOf({ ...bareJwk(jwk), x: request.x, y: request.y })
      const expected: unknown = JSON.parse(reply)
      assert.deepEqual(
        { alg: 'ECMR', key_ops: ['deriveKey'], ...jwkOf(own.multiply(point), jwk.crv) },
        expected,
      )
    })
  }
})
