import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, diffieHellman, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { p521 } from '@noble/curves/nist.js'
import fc from 'fast-check'
import { buildP521Module, P521_MODULE_PATH } from '../build/p521.ts'
import { isOnP521, p521Multiplier } from './p521.ts'

const { p, n } = p521.Point.CURVE()

interface Affine {
  x: bigint
  y: bigint
}

function bytes(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(132, '0'), 'hex')
}

function number(value: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(value).toString('hex')}`)
}

function randomScalar(): bigint {
  return 1n + (number(randomBytes(80)) % (n - 1n))
}

function publicPoint(scalar: bigint): Affine {
  return p521.Point.BASE.multiply(scalar).toAffine()
}

function times(scalar: bigint, { x, y }: Affine): Affine {
  const multiplier = p521Multiplier(bytes(scalar))
  const result = multiplier.multiply(bytes(x), bytes(y))
  multiplier.dispose()
  return { x: number(result.x), y: number(result.y) }
}

/** The x coordinate of scalar * point as OpenSSL computes it. */
function opensslX(scalar: bigint, point: Affine): bigint {
  const jwk = ({ x, y }: Affine) => ({
    kty: 'EC',
    crv: 'P-521',
    x: bytes(x).toString('base64url'),
    y: bytes(y).toString('base64url'),
  })
  const own = { ...jwk(publicPoint(scalar)), d: bytes(scalar).toString('base64url') }
  return number(
    diffieHellman({
      privateKey: createPrivateKey({ key: own, format: 'jwk' }),
      publicKey: createPublicKey({ key: jwk(point), format: 'jwk' }),
    }),
  )
}

function assertProduct(scalar: bigint, point: Affine): void {
  const expected = p521.Point.fromAffine(point).multiply(scalar).toAffine()
  assert.deepEqual(times(scalar, point), expected, `${scalar.toString(16)} * ${point.x}`)
}

/** Points one of whose coordinates begins with at least `zeros` zero bytes, found by counting up. */
function* pointsWithLeadingZeros(zeros: number, count: number): Generator<Affine> {
  const limit = 1n << BigInt(8 * (66 - zeros))
  let point = p521.Point.BASE
  for (let found = 0, tried = 0; found < count && tried < 100_000; tried += 1) {
    point = point.add(p521.Point.BASE)
    const { x, y } = point.toAffine()
    if (x >= limit && y >= limit) continue
    found += 1
    yield { x, y }
  }
}

describe('the generated core', () => {
  test('is what crypto/build makes of crypto/assembly today', async () => {
    assert.equal(await readFile(P521_MODULE_PATH, 'utf8'), await buildP521Module())
  })

  test('does not depend on anything outside', async () => {
    const { P521_WASM } = await import('../generated/p521-wasm.ts')
    const module = new WebAssembly.Module(Buffer.from(P521_WASM, 'base64'))
    assert.deepEqual(WebAssembly.Module.imports(module), [])
  })
})

describe('scalar multiplication', () => {
  test('equals OpenSSL and noble for 240 random scalars and points', () => {
    for (let round = 0; round < 240; round += 1) {
      const [scalar, point] = [randomScalar(), publicPoint(randomScalar())]
      assertProduct(scalar, point)
      assert.equal(times(scalar, point).x, opensslX(scalar, point))
    }
  })

  test('equals noble at the ends of the range and around every window', () => {
    const scalars = [1n, 2n, 3n, 4n, 5n, 30n, 31n, 32n, 33n, 63n, 64n, 65n]
    for (let below = 1n; below <= 90n; below += 1n) scalars.push(n - below)
    for (const scalar of scalars) assertProduct(scalar, publicPoint(randomScalar()))
  })

  test('equals noble for all powers of two, one less and one more', () => {
    const point = publicPoint(randomScalar())
    const noble = p521.Point.fromAffine(point)
    let power = noble
    for (let bit = 1n; bit <= 520n; bit += 1n) {
      power = power.double()
      assert.deepEqual(times(1n << bit, point), power.toAffine())
      if (bit % 5n !== 0n) continue
      assert.deepEqual(times((1n << bit) + 1n, point), power.add(noble).toAffine())
      if (bit > 1n)
        assert.deepEqual(times((1n << bit) - 1n, point), power.subtract(noble).toAffine())
    }
  })

  test('handles coordinates with leading zero bytes, given and resulting', () => {
    const points = [...pointsWithLeadingZeros(2, 6)]
    assert.equal(points.length, 6)
    for (const point of points) {
      const scalar = randomScalar()
      assertProduct(scalar, point)
      const inverse = p521.Point.Fn.inv(scalar)
      const start = p521.Point.fromAffine(point).multiply(inverse).toAffine()
      assert.deepEqual(times(scalar, start), point)
    }
  })

  test('is commutative and undone by the inverse scalar', () => {
    const scalars = fc.bigInt({ min: 1n, max: n - 1n })
    fc.assert(
      fc.property(scalars, scalars, scalars, (a, b, c) => {
        const point = publicPoint(c)
        assert.deepEqual(times(a, times(b, point)), times(b, times(a, point)))
        assert.deepEqual(times(p521.Point.Fn.inv(a), times(a, point)), point)
      }),
      { numRuns: 60 },
    )
  })

  test('keeps hundreds of scalars apart', () => {
    const point = publicPoint(randomScalar())
    const noble = p521.Point.fromAffine(point)
    const keys = Array.from({ length: 300 }, (_, index) => p521Multiplier(bytes(BigInt(index + 1))))
    let expected = noble
    for (const key of keys) {
      const { x, y } = key.multiply(bytes(point.x), bytes(point.y))
      assert.deepEqual({ x: number(x), y: number(y) }, expected.toAffine())
      expected = expected.add(noble)
    }
  })
})

describe('what is refused', () => {
  test('scalars outside [1, n-1] and of another width', () => {
    for (const scalar of [0n, n, n + 1n, 2n * n, 2n ** 521n - 1n, 2n ** 521n, 2n ** 528n - 1n]) {
      assert.throws(() => p521Multiplier(bytes(scalar)), { code: 'crypto.jwk_malformed' })
    }
    assert.throws(() => p521Multiplier(new Uint8Array(65)), { code: 'crypto.jwk_malformed' })
  })

  test('points off the curve, coordinates not below p and of another width', () => {
    const key = p521Multiplier(bytes(randomScalar()))
    const { x, y } = publicPoint(randomScalar())
    const hostile: [bigint, bigint][] = [
      [0n, 0n],
      [x, y + 1n],
      [y, x],
      [x + p, y],
      [p, p],
      [x, p - y + 1n],
    ]
    for (const [badX, badY] of hostile) {
      assert.equal(isOnP521(bytes(badX), bytes(badY)), false)
      const attempt = () => key.multiply(bytes(badX), bytes(badY))
      assert.throws(attempt, { code: 'crypto.point_invalid' })
    }
    assert.throws(() => key.multiply(bytes(x).subarray(1), bytes(y)), {
      code: 'crypto.point_invalid',
    })
    assert.equal(isOnP521(bytes(x), bytes(p - y)), true)
  })

  test('a point with any one bit flipped', () => {
    const { x, y } = publicPoint(randomScalar())
    const flip = (value: bigint, bit: number) => bytes(value ^ (1n << BigInt(bit)))
    for (let bit = 0; bit < 528; bit += 1) {
      assert.equal(isOnP521(flip(x, bit), bytes(y)), false)
      assert.equal(isOnP521(bytes(x), flip(y, bit)), false)
    }
  })

  test('a disposed scalar', () => {
    const key = p521Multiplier(bytes(5n))
    key.dispose()
    const { x, y } = publicPoint(1n)
    assert.throws(() => key.multiply(bytes(x), bytes(y)), { code: 'crypto.jwk_malformed' })
  })
})
