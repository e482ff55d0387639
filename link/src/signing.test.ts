import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import {
  type CommandFrame,
  checkCommand,
  checkDocument,
  isWitnessed,
  signCommand,
  signDocument,
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
}
const refused = { code: 'link.document_invalid' }

test('a command counts for its node, its cluster and its very words', () => {
  const frame = signCommand(privateKey, to, command)
  checkCommand(publicKey, to, frame)
  const changes: Partial<CommandFrame>[] = [
    { id: 'j'.repeat(22) },
    { command: 'reboot' },
    { by: 'eve' },
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
