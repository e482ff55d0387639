import assert from 'node:assert/strict'
import { constants, generateKeyPairSync, privateDecrypt, publicEncrypt } from 'node:crypto'
import { test } from 'node:test'
import { Secret } from '@holdfast/base'
import { assert as check, integer, property, uint8Array } from 'fast-check'
import { removeOaep } from './oaep.ts'

const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 3072 })
const length = 3072 / 8
const wrap = (message: Uint8Array, oaepHash: string) =>
  publicEncrypt({ key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash }, message)
const raw = (wrapped: Buffer) =>
  privateDecrypt({ key: privateKey, padding: constants.RSA_NO_PADDING }, wrapped)

test('what OpenSSL pads is found again, of any length, with or without leading zeros', () => {
  const longest = length - 2 * 32 - 2
  check(
    property(uint8Array({ maxLength: longest }), (message) => {
      const block = raw(wrap(message, 'sha256'))
      using whole = removeOaep(Secret.copy(block), length)
      using short = removeOaep(Secret.copy(block.subarray(1)), length)
      assert.deepEqual(whole.reveal(), Buffer.from(message))
      assert.deepEqual(short.reveal(), Buffer.from(message))
    }),
    { numRuns: 50 },
  )
})

test('any changed bit, another hash and another length are refused', () => {
  const block = raw(wrap(Buffer.from('a share of thirty-two bytes here'), 'sha256'))
  const refused = (bytes: Buffer, size = length) =>
    assert.throws(() => removeOaep(Secret.copy(bytes), size), { code: 'ceremony.share_wrong' })
  check(
    property(integer({ min: 0, max: length * 8 - 1 }), (bit) => {
      const changed = Buffer.from(block)
      const at = bit >> 3
      changed[at] = (changed[at] ?? 0) ^ (1 << (bit & 7))
      refused(changed)
    }),
    { numRuns: 300 },
  )
  refused(raw(wrap(Buffer.from('x'), 'sha1')))
  refused(Buffer.concat([block, Buffer.alloc(1)]))
  refused(Buffer.alloc(0))
  refused(block, 40)
})
