import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Secret } from '@holdfast/base'
import fc from 'fast-check'
import {
  countWrong,
  formatCode,
  makeCode,
  makePair,
  mostAttempts,
  parseCode,
  SealedChannel,
} from './sealed-channel.ts'

test('a code is read as it is written, whatever its case, spaces and look-alikes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 10, maxLength: 10 }), (bytes) => {
      const code = Secret.copy(bytes)
      const text = formatCode(code)
      assert.match(text, /^([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$/)
      const typed = text.toLowerCase().replace(/-/g, ' ').replace(/0/g, 'o').replace(/1/g, 'l')
      assert.deepEqual(parseCode(typed).reveal(), code.reveal())
    }),
  )
})

test('what is not a code is refused', () => {
  for (const text of ['', 'ABCD', 'ABCD-EFGH-JKMN-PQR', 'ABCD-EFGH-JKMN-PQRU', '🔑'.repeat(16)])
    assert.throws(() => parseCode(text), { code: 'link.code_malformed' })
})

function ends(nodeCode: Secret, coordinatorCode: Secret) {
  const [node, coordinator] = [makePair(), makePair()]
  return {
    node: SealedChannel.derive(node, coordinator.shown, 'node', nodeCode),
    coordinator: SealedChannel.derive(coordinator, node.shown, 'coordinator', coordinatorCode),
  }
}

test('both ends read each other under the same code, in the right direction only', async () => {
  const code = makeCode()
  const { node, coordinator } = ends(code, code)
  assert.deepEqual(node.exchange, coordinator.exchange)
  const card = await node.seal('card', { hello: 1 })
  assert.deepEqual(coordinator.open('card', card), { hello: 1 })
  const offer = await coordinator.seal('offer', { there: 2 })
  assert.deepEqual(node.open('offer', offer), { there: 2 })
  const wrong = { code: 'link.enrolment_wrong_code' }
  assert.throws(() => coordinator.open('offer', card), wrong)
  assert.throws(() => node.open('card', offer), wrong)
})

test('another code, another exchange or a changed character opens nothing', async () => {
  const code = makeCode()
  const wrong = { code: 'link.enrolment_wrong_code' }
  const { node, coordinator } = ends(code, makeCode())
  assert.throws(() => coordinator.open('card', 'x'), wrong)
  const card = await node.seal('card', {})
  assert.throws(() => coordinator.open('card', card), wrong)
  const [first, second] = [ends(code, code), ends(code, code)]
  const offer = await first.coordinator.seal('offer', { a: 1 })
  assert.throws(() => second.node.open('offer', offer), wrong)
  for (let place = 0; place < offer.length; place += 7) {
    const other = offer[place] === 'A' ? 'Q' : 'A'
    if (offer[place] === '.') continue
    const changed = offer.slice(0, place) + other + offer.slice(place + 1)
    assert.throws(() => first.node.open('offer', changed), wrong)
  }
})

test('points of small order and other rubbish are not exchange keys', () => {
  const zero = Buffer.alloc(32).toString('base64url')
  const one = Buffer.concat([Buffer.of(1), Buffer.alloc(31)]).toString('base64url')
  for (const key of [zero, one, '', 'AAAA', '!'.repeat(43)])
    assert.throws(() => SealedChannel.derive(makePair(), key, 'node', makeCode()), {
      code: 'link.enrolment_refused',
    })
})

test('every fifth wrong offer replaces the code', () => {
  let attempts = { wrong: 0 }
  const rotations: number[] = []
  for (let offer = 1; offer <= 12; offer += 1) {
    const next = countWrong(attempts)
    attempts = next.attempts
    if (next.rotate) rotations.push(offer)
  }
  assert.deepEqual(rotations, [mostAttempts, 2 * mostAttempts])
})
