import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bodyLimit, type Parsed, parseRequest, targetLimit } from './request.ts'

const parse = (text: string): Parsed => parseRequest(Buffer.from(text, 'latin1'))

function requestOf(parsed: Parsed) {
  assert.equal(parsed.kind, 'request')
  return parsed.kind === 'request' ? parsed.request : assert.fail()
}

function status(parsed: Parsed): number | string {
  return parsed.kind === 'broken' ? parsed.status : parsed.kind
}

test('a request with a body is taken with its exact length', () => {
  const text = 'POST /rec/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /'
  const request = requestOf(parse(text))
  assert.equal(request.method, 'POST')
  assert.equal(request.target, '/rec/x')
  assert.equal(Buffer.from(request.body).toString(), 'abc')
  assert.equal(request.keepAlive, true)
  assert.equal(text.slice(request.length), 'GET /')
})

test('a body in more chunks than anybody needs is refused before it is complete', () => {
  const head = 'POST /r HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n'
  const chunks = (count: number) => `1;${'e'.repeat(400)}\r\nx\r\n`.repeat(count)
  assert.equal(requestOf(parse(`${head}${chunks(256)}0\r\n\r\n`)).body.length, 256)
  assert.equal(status(parse(`${head}${chunks(257)}`)), 413)
})

test('chunks, with extensions and trailers, are put together', () => {
  const chunks = '3;a=b\r\nabc\r\n002\r\nde\r\n0\r\nX: y\r\n\r\n'
  const request = requestOf(
    parse(`POST /r HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}`),
  )
  assert.equal(Buffer.from(request.body).toString(), 'abcde')
})

test('HTTP/1.0 and connection options decide whether the connection stays', () => {
  const keepAlive = (version: string, header: string) =>
    requestOf(parse(`GET / HTTP/${version}\r\n${header}\r\n`)).keepAlive
  assert.equal(keepAlive('1.1', ''), true)
  assert.equal(keepAlive('1.1', 'Connection: close\r\n'), false)
  assert.equal(keepAlive('1.1', 'Connection: TE, Close\r\n'), false)
  assert.equal(keepAlive('1.0', ''), false)
  assert.equal(keepAlive('1.0', 'Connection: Keep-Alive\r\n'), true)
})

test('what is not HTTP is refused without a status, and too much of anything with one', () => {
  const cases: [string, number][] = [
    ['GARBAGE\r\n\r\n', 0],
    ['get /adv HTTP/1.1\r\n\r\n', 0],
    ['GET /adv HTTP/2.0\r\n\r\n', 0],
    ['GET /adv\r\n\r\n', 0],
    ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaa', 0],
    [`GET /${'a'.repeat(targetLimit - 1)} HTTP/1.1\r\n\r\n`, 414],
    [`GET /${'a'.repeat(20_000)}`, 414],
    [`GET / HTTP/1.1\r\nX: ${'a'.repeat(20_000)}`, 431],
    [`POST / HTTP/1.1\r\nContent-Length: ${bodyLimit}\r\n\r\n`, 413],
    ['POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n', 413],
    ['POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n', 400],
    ['POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n', 400],
    ['POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n', 400],
    ['POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400],
    ['POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n', 400],
    ['POST / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n', 400],
    ['GET / HTTP/1.1\r\nA : b\r\n\r\n', 400],
    ['GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n', 400],
    ['GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n', 400],
    ['GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', 400],
  ]
  for (const [text, expected] of cases)
    assert.equal(status(parse(text)), expected, text.slice(0, 60))
  assert.equal(status(parse(`GET /${'a'.repeat(targetLimit - 2)} HTTP/1.1\r\n\r\n`)), 'request')
})

test('whatever arrives, the parser answers; and a request never depends on how it was cut', () => {
  const piece = fc.constantFrom(
    'POST /rec/abc HTTP/1.1\r\n',
    'GET /adv HTTP/1.0\r\n',
    'Content-Length: 5\r\n',
    'Transfer-Encoding: chunked\r\n',
    'Expect: 100-continue\r\n',
    '\r\n',
    '5\r\nhello\r\n',
    '0\r\n\r\n',
    'hello',
    '\0\x80\xff',
    ':',
    '\n',
  )
  const input = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc.array(piece, { maxLength: 12 }).map((parts) => Buffer.from(parts.join(''), 'latin1')),
  )
  fc.assert(
    fc.property(input, fc.nat(), (bytes, cut) => {
      const whole = parseRequest(bytes)
      assert.ok(['more', 'request', 'broken'].includes(whole.kind))
      const part = parseRequest(bytes.subarray(0, cut % (bytes.length + 1)))
      if (part.kind !== 'request') return
      assert.deepEqual(whole, part, 'a complete request must not change when more arrives')
    }),
    { numRuns: 3_000 },
  )
})
