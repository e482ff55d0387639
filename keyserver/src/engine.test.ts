import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '@holdfast/base'
import { curveNames, exchangeKey, generateEcKey, negate } from '@holdfast/crypto'
import fc from 'fast-check'
import { Engine } from './engine.ts'
import { recover } from './recovery.ts'
import { initialise } from './rotate.ts'
import { selfTest, warmUp } from './self-test.ts'
import { blindedPoint, scratch, silentLog } from './server-fixture.ts'

async function startEngine(onFaulty: () => void = () => undefined) {
  await using stack = new AsyncDisposableStack()
  const { path } = stack.use(await scratch())
  await initialise(path, { curve: 'P-256' })
  const engine = stack.use(await Engine.start(path, silentLog, onFaulty))
  const owned = stack.move()
  const [key] = [...engine.snapshot.serving.values()]
  assert.ok(key)
  return { engine, key, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

test('the self-test passes for right arithmetic on every curve and fails for wrong', () => {
  for (const crv of curveNames) {
    const jwk = generateEcKey(crv)
    using exchange = exchangeKey(jwk)
    selfTest(exchange, jwk)
    warmUp(exchange, 3)
    using other = exchangeKey(generateEcKey(crv))
    assert.throws(
      () => selfTest(other, jwk),
      (error) => isFault(error, 'keyserver.self_test_failed'),
    )
  }
})

test('after a failed self-test no recovery is answered, before or after a reload', async (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] })
  let reported = 0
  await using started = await startEngine(() => {
    reported += 1
  })
  const { engine, key } = started
  const ask = () =>
    recover(engine.snapshot, '', key.stored.kid, Buffer.from(blindedPoint('P-256'))).status
  assert.equal(ask(), 200)
  context.mock.timers.tick(60_000)
  assert.deepEqual([engine.health().status, ask()], ['ok', 200])
  const right = key.exchange.multiply
  Object.assign(key.exchange, {
    multiply: (point: Parameters<typeof right>[0]) =>
      right(negate(right(point), key.exchange.curve)),
  })
  context.mock.timers.tick(60_000)
  assert.equal(reported, 1)
  assert.deepEqual([engine.health().status, ask()], ['failed', 500])
  await engine.reload()
  assert.deepEqual([engine.health().status, ask()], ['failed', 500])
})

test('whatever a request body holds, the status is one of the table', async () => {
  await using started = await startEngine()
  const { engine, key } = started
  const good = JSON.parse(blindedPoint('P-256'))
  const member = fc.constantFrom('kty', 'crv', 'x', 'y', 'alg', 'key_ops', 'use', 'd', '__proto__')
  const value = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom('EC', 'ECMR', 'P-256', 'P-521', good.x, good.y, ['deriveKey'], ''),
  )
  const edited = fc
    .array(fc.tuple(member, value), { maxLength: 4 })
    .map((changes) => JSON.stringify({ ...good, ...Object.fromEntries(changes) }))
  const body = fc.oneof(
    edited.map((text) => Buffer.from(text)),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    fc.json().map((text) => Buffer.from(text)),
  )
  const thumbprint = fc.constantFrom(...key.stored.thumbprints, 'none', '__proto__', 'constructor')
  let served = 0
  fc.assert(
    fc.property(body, thumbprint, (bytes, name) => {
      const { status, reply } = recover(engine.snapshot, '', name, bytes)
      assert.ok([200, 400, 403, 404].includes(status), `${status}`)
      assert.ok(reply.startsWith(`HTTP/1.1 ${status} `))
      if (status === 200) served += 1
      else assert.ok(reply.endsWith('Content-Length: 0\r\n\r\n'))
    }),
    { numRuns: 2_000 },
  )
  assert.ok(served > 0)
})
