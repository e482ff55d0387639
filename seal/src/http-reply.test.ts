import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '@holdfast/base'
import fc from 'fast-check'
import { ReplyReader } from './http-reply.ts'

const body = '{"kty":"EC"}'
const wholes: [string, string][] = [
  ['by length', `HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n${body}`],
  [
    'in chunks',
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"kty\r\n7;x=y\r\n":"EC"}\r\n0\r\n\r\n`,
  ],
  [
    'after an interim reply',
    `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:12\r\n\r\n${body}`,
  ],
]

for (const [how, text] of wholes) {
  test(`a reply ${how} is read the same however it is cut`, () => {
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 8 }), (cuts) => {
        const reader = new ReplyReader('http://server', 100)
        const edges = [0, ...cuts.sort((a, b) => a - b), text.length]
        let reply: unknown
        edges.slice(1).forEach((edge, index) => {
          if (reply === undefined) reply = reader.add(Buffer.from(text.slice(edges[index], edge)))
        })
        assert.deepEqual(reply, { status: 200, body })
      }),
    )
  })
}

test('without a length the end of the connection ends the reply', () => {
  const reader = new ReplyReader('http://server', 100)
  assert.equal(
    reader.add(Buffer.from(`HTTP/1.0 503 Busy\r\nRetry-After: 3\r\n\r\n${body}`)),
    undefined,
  )
  assert.deepEqual(reader.end(), { status: 503, body, retryAfter: 3 })
})

test('a cut reply is none', () => {
  for (const [, text] of wholes) {
    const reader = new ReplyReader('http://server', 100)
    assert.equal(reader.add(Buffer.from(text.slice(0, -5))), undefined)
    assert.equal(reader.end(), undefined)
  }
})

test('what no server should send is refused', () => {
  const refused = [
    'SSH-2.0-OpenSSH\r\n',
    'HTTP/1.1 abc\r\n\r\n',
    'HTTP/2 200\r\n\r\n',
    'HTTP/1.1 200 OK\r\nno colon\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
    'HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n',
    `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(17_000)}`,
  ]
  for (const text of refused) {
    const reader = new ReplyReader('http://server', 100)
    assert.throws(
      () => reader.add(Buffer.from(text)),
      { code: 'seal.server_reply_invalid' },
      text.slice(0, 60),
    )
  }
})

test('arbitrary bytes give a reply, nothing yet, or a fault', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 6 }),
      fc.boolean(),
      (chunks, prefixed) => {
        const reader = new ReplyReader('http://server', 100)
        try {
          if (prefixed) reader.add(Buffer.from('HTTP/1.1 200 OK\r\n'))
          for (const chunk of chunks) reader.add(Buffer.from(chunk))
          reader.end()
        } catch (error) {
          assert.ok(isFault(error, 'seal.server_reply_invalid'), String(error))
        }
      },
    ),
  )
})
