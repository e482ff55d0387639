import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { replyLength, replyStatus } from './client.ts'

const whole = Buffer.from('HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello')

test('a reply is complete at its stated length and not a byte before', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: whole.length - 1 }), (cut) => {
      assert.equal(replyLength(whole.subarray(0, cut)), 0)
    }),
  )
  assert.equal(replyLength(whole), whole.length)
  assert.equal(replyLength(Buffer.concat([whole, whole])), whole.length)
  assert.equal(replyLength(Buffer.from('HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n')), 44)
})

test('a status is read, and its absence is 0', () => {
  assert.equal(replyStatus(whole), 200)
  assert.equal(replyStatus(Buffer.from('HTTP/1.1 4')), 0)
  assert.equal(replyStatus(Buffer.from('rubbish rubbish')), 0)
})
