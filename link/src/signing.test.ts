import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import {
  type CommandFrame,
  checkCommand,
  checkDocument,
  checkErrand,
  isWitnessed,
  signCommand,
  signDocument,
  signErrand,
  signGeneration,
} from './signing.ts'

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const publicKey = createPublicKey(privateKey)
const to = { cluster: 'c'.repeat(22), node: 'n'.repeat(43) }
const command = {
  id: 'i'.repeat(22),
  command: 'restart' as const,
  arguments: { service: 'web', force: false },
  by: 'ada',
  issue: 7,
}
const refused = { code: 'link.document_invalid' }

test('a command counts for its node, its cluster and its very words', () => {
  const frame = signCommand(privateKey, to, command)
  checkCommand(publicKey, to, frame)
  const changes: Partial<CommandFrame>[] = [
    { id: 'j'.repeat(22) },
    { command: 'reboot' },
    { by: 'eve' },
    { issue: 8 },
    { arguments: { service: 'web', force: true } },
    { signature: '' },
    { signature: '!' },
  ]
  for (const change of changes)
    assert.throws(() => checkCommand(publicKey, to, { ...frame, ...change }), refused)
  assert.throws(() => checkCommand(publicKey, { ...to, node: 'm'.repeat(43) }, frame), refused)
  assert.throws(() => checkCommand(publicKey, { ...to, cluster: 'd'.repeat(22) }, frame), refused)
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey
  assert.throws(() => checkCommand(other, to, frame), refused)
})

test('the order of members changes nothing', () => {
  const frame = signCommand(privateKey, to, command)
  checkCommand(publicKey, to, { ...frame, arguments: { force: false, service: 'web' } })
})

test('an errand counts for its node, its cluster and its very words', () => {
  const ward = { ward: 'w'.repeat(43), identity: 'pem', epoch: 2, id: 'i'.repeat(22) }
  const keys = signErrand(privateKey, to, { kind: 'ward', action: 'prepare', ...ward })
  const set = { id: 'i'.repeat(22), epoch: 2, threshold: 2, guardians: [] }
  const order = signErrand(privateKey, to, { kind: 'reshare', ...set })
  for (const frame of [keys, order]) {
    checkErrand(publicKey, to, frame)
    assert.throws(() => checkErrand(publicKey, to, { ...frame, epoch: 3 }), refused)
    assert.throws(() => checkErrand(publicKey, to, { ...frame, signature: '' }), refused)
    assert.throws(() => checkErrand(publicKey, { ...to, node: 'm'.repeat(43) }, frame), refused)
    assert.throws(() => checkErrand(publicKey, { ...to, cluster: 'd'.repeat(22) }, frame), refused)
  }
  assert.ok(keys.kind === 'ward' && order.kind === 'reshare')
  assert.throws(() => checkErrand(publicKey, to, { ...keys, action: 'retire' }), refused)
  assert.throws(() => checkErrand(publicKey, to, { ...order, threshold: 1 }), refused)
})

test("a document's version and name are signed with its body", () => {
  const frame = signDocument(privateKey, { name: 'freeze', version: 3, body: '{}' })
  checkDocument(publicKey, frame)
  assert.throws(() => checkDocument(publicKey, { ...frame, version: 4 }), refused)
  assert.throws(() => checkDocument(publicKey, { ...frame, name: 'peers' }), refused)
  assert.throws(() => checkDocument(publicKey, { ...frame, body: '[]' }), refused)
})

test('a witnessed generation is believed only with its proof', () => {
  const witness = signGeneration(privateKey, to.cluster, 7)
  assert.equal(isWitnessed(publicKey, witness), true)
  assert.equal(isWitnessed(publicKey, { ...witness, generation: 8 }), false)
  assert.equal(isWitnessed(publicKey, { ...witness, cluster: 'd'.repeat(22) }), false)
})
