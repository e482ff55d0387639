import assert from 'node:assert/strict'
import { createECDH } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { describe, test } from 'node:test'
import { parseJson } from '@holdfast/base'
import {
  addPoints,
  type CurveName,
  curveNames,
  curveOf,
  type EcPrivateJwk,
  exchangeKey,
  generateEcKey,
  jwkOf,
  type Point,
  parseEcPublicJwk,
  pointOf,
  thumbprint,
  toNumber,
} from '@holdfast/crypto'
import { p256, p384, p521 } from '@noble/curves/nist.js'
import { keyWithScalar, startTangd, type Tangd } from './lib/tangd.ts'

// Our multiplication against a real tangd's, over one connection with the requests pipelined.

const oracles = { 'P-256': p256, 'P-384': p384, 'P-521': p521 }

function randomPoint(crv: CurveName): Point {
  const { openssl, size } = curveOf(crv)
  const encoded = createECDH(openssl).generateKeys() // 4, x, y
  return { x: toNumber(encoded.subarray(1, 1 + size)), y: toNumber(encoded.subarray(1 + size)) }
}

/** Sums of random points: as good as random, and cheaper than a key each. */
function randomPoints(crv: CurveName, count: number): Point[] {
  const pool = Array.from({ length: 64 }, () => randomPoint(crv))
  const sums = pool.flatMap((a, index) =>
    pool.slice(index + 1).map((b) => addPoints(a, b, curveOf(crv))),
  )
  return sums.slice(-count)
}

/**
 * The first `count` points by x coordinate: nearly all bytes of x are zero. Not x = 0 itself, which
 * tangd takes but cannot print: it answers 400 when that is the result.
 */
function tinyPoints(crv: CurveName, count: number): Point[] {
  const { Point: OraclePoint } = oracles[crv]
  const { size } = curveOf(crv)
  const found: Point[] = []
  for (let x = 1; found.length < count; x += 1) {
    const encoded = Buffer.alloc(size + 1)
    encoded[0] = 2 + (x & 1)
    encoded.writeUInt16BE(x, size - 1)
    try {
      found.push(OraclePoint.fromBytes(encoded).toAffine())
    } catch {
      // no point has this x
    }
  }
  return found
}

/** Points whose x or y begins with a zero byte beyond what the field's width has anyway. */
function paddedPoints(crv: CurveName, count: number): Point[] {
  const limit = curveOf(crv).p >> 8n
  const found: Point[] = []
  while (found.length < count) {
    const point = randomPoint(crv)
    if (point.x < limit || point.y < limit) found.push(point)
  }
  return found
}

function requestOf(tang: Tangd, kid: string, crv: CurveName, point: Point): string {
  const body = JSON.stringify({ alg: 'ECMR', ...jwkOf(point, crv) })
  const head = `POST /rec/${kid} HTTP/1.1\r\nHost: 127.0.0.1:${tang.port}`
  return `${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`
}

/** Sends all requests at once and reads as many replies, in order. */
async function pipelined(tang: Tangd, requests: readonly string[]): Promise<string[]> {
  const socket: Socket = connect(tang.port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(requests.join(''))
  const bodies: string[] = []
  let text = ''
  for await (const chunk of socket) {
    text += String(chunk)
    if (/^HTTP\/1\.1 [^2]/.test(text)) throw new Error(`tangd refused: ${text.slice(0, 40)}`)
    for (;;) {
      const head = /^HTTP\/1\.1 200 OK\r\n.*?Content-Length: (\d+)\r\n\r\n/is.exec(text)
      const end = head === null ? Number.POSITIVE_INFINITY : head[0].length + Number(head[1])
      if (head === null || text.length < end) break
      bodies.push(text.slice(head[0].length, end))
      text = text.slice(end)
    }
    if (bodies.length === requests.length) break // leaving the loop closes the connection
  }
  return bodies
}

async function compare(tang: Tangd, jwk: EcPrivateJwk, points: readonly Point[]): Promise<void> {
  const kid = thumbprint(jwk)
  const requests = points.map((point) => requestOf(tang, kid, jwk.crv, point))
  const asked = pipelined(tang, requests)
  using key = exchangeKey(jwk)
  const ours: Point[] = []
  for (const point of points) {
    ours.push(key.multiply(point))
    await new Promise((resolve) => setImmediate(resolve)) // tangd works meanwhile
  }
  const bodies = await asked
  assert.equal(bodies.length, points.length)
  points.forEach((point, index) => {
    const theirs = pointOf(parseEcPublicJwk(parseJson(bodies[index] ?? '', 'the reply'), 'reply'))
    assert.deepEqual(ours[index], theirs, `${jwk.crv} ${jwk.d} * ${point.x}`)
  })
}

describe('our multiplication and tangd agree', () => {
  for (const crv of curveNames) {
    test(`1000 random points of ${crv}`, async () => {
      await using tang = await startTangd({ exchange: crv, signing: 'P-256' })
      const jwk = (await tang.keys()).find((key) => key.key_ops?.includes('deriveKey'))
      assert.ok(jwk)
      const points = randomPoints(crv, 1000)
      assert.equal(new Set(points.map(({ x }) => x)).size, 1000)
      await compare(tang, jwk, points)
    })

    test(`points of ${crv} with leading zero bytes`, async () => {
      await using tang = await startTangd({ exchange: crv, signing: 'P-256' })
      const jwk = (await tang.keys()).find((key) => key.key_ops?.includes('deriveKey'))
      assert.ok(jwk)
      await compare(tang, jwk, [...tinyPoints(crv, 20), ...paddedPoints(crv, 2)])
    })

    test(`scalars of ${crv} that are sparse, small, large or begin with zeros`, async () => {
      const { n, size } = curveOf(crv)
      const bits = BigInt(size * 8)
      const sparse = [1n, 2n, 3n, 16n, 2n ** 32n, 2n ** (bits / 2n) + 1n, 2n ** (bits - 20n)]
      const scalars = [...sparse, n >> 8n, n >> 64n, n >> 1n, n - 2n, n - 3n, 2n ** 200n - 1n]
      await using tang = await startTangd({ exchange: crv, signing: 'P-256' })
      const points = [...tinyPoints(crv, 2), randomPoint(crv), pointOf(generateEcKey(crv))]
      for (const scalar of scalars) {
        const jwk = keyWithScalar(crv, scalar)
        await tang.addKey(jwk, 'exchange')
        await compare(tang, jwk, points)
      }
    })
  }
})
