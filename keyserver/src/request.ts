// A strict HTTP/1.1 request parser (RFC 9112) for what a Tang client sends. It reads from one buffer
// and either needs more, has a request, or knows how the connection must end. Anything on which
// two parsers could disagree (both length and chunks, folded lines, bare line feeds) is refused.
//
// Why not node:http: it answers 400 where tangd closes in silence, and a bare prototype of it without
// limits, audit and metrics took no less processor time than this with them (P-256, median of
// three: 421 against 407 us on new connections, 286 against 253 us on kept ones).

/** tangd 11's limits: a target of 4096 or a body of 65536 bytes is too long. */
export const targetLimit = 4096
export const bodyLimit = 65536
const headLimit = 16 * 1024
/**
 * Chunks are parsed again with every packet, so their number is bounded, and with it what extensions
 * can add; curl sends what a recovery takes in one.
 */
const chunkLimit = 256

export interface Request {
  readonly method: string
  readonly target: string
  readonly body: Uint8Array
  /** False when the client wants the connection closed after the reply. */
  readonly keepAlive: boolean
  /** How many bytes of the buffer it took. */
  readonly length: number
}

export type Parsed =
  /** Incomplete; it is no use to ask again before `need` bytes are there. */
  | { kind: 'more'; need: number; expectsContinue: boolean }
  | { kind: 'request'; request: Request }
  /** Reply with the status, or with nothing when it is 0, and close. */
  | { kind: 'broken'; status: 0 | 400 | 413 | 414 | 431 }

const requestLine = /^([A-Z]{1,20}) ([!-~]+) HTTP\/1\.([01])$/
const headerLine = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/
const more: Parsed = { kind: 'more', need: 0, expectsContinue: false }
const empty = new Uint8Array(0)

const broken = (status: 0 | 400 | 413 | 414 | 431): Parsed => ({ kind: 'broken', status })

/** Parses the request at the start of `input`. */
export function parseRequest(input: Buffer): Parsed {
  const start = skipBlankLines(input)
  const end = input.indexOf('\r\n\r\n', start, 'latin1')
  if (end < 0) return incompleteHead(input, start)
  if (end - start > headLimit) return tooLong(input, start)
  const lines = input.toString('latin1', start, end).split('\r\n')
  const first = requestLine.exec(lines[0] ?? '')
  if (first === null) return broken(0) // not HTTP: tangd closes without a word, and so do we
  const [, method = '', target = '', minor] = first
  if (target.length >= targetLimit) return broken(414)
  const headers = readHeaders(lines)
  if (headers === undefined) return broken(400)
  if (minor === '1' && headers.hosts > 1) return broken(400)
  const bodyStart = end + 4
  const body = headers.chunked
    ? readChunks(input, bodyStart)
    : readLength(input, bodyStart, headers.length)
  if ('status' in body) return broken(body.status)
  if (body.bytes === undefined) {
    return { kind: 'more', need: body.end, expectsContinue: headers.expectsContinue }
  }
  const keepAlive = minor === '1' ? !headers.close : headers.keepAlive && !headers.close
  return {
    kind: 'request',
    request: { method, target, body: body.bytes, keepAlive, length: body.end },
  }
}

function skipBlankLines(input: Buffer): number {
  let start = 0
  while (start < 8 && input[start] === 13 && input[start + 1] === 10) start += 2
  return start
}

/** Is the head merely unfinished, or already wrong? */
function incompleteHead(input: Buffer, start: number): Parsed {
  if (input.length - start > headLimit) return tooLong(input, start)
  if (
    input.length - start >= 20 &&
    !/^[A-Z]{1,20} /.test(input.toString('latin1', start, start + 21))
  ) {
    return broken(0)
  }
  return more
}

function tooLong(input: Buffer, start: number): Parsed {
  const line = input.indexOf('\r\n', start, 'latin1')
  return broken(line < 0 || line - start > targetLimit ? 414 : 431)
}

interface Headers {
  length: number
  chunked: boolean
  close: boolean
  keepAlive: boolean
  expectsContinue: boolean
  hosts: number
}

function readHeaders(lines: readonly string[]): Headers | undefined {
  const headers: Headers = {
    length: 0,
    chunked: false,
    close: false,
    keepAlive: false,
    expectsContinue: false,
    hosts: 0,
  }
  let lengths = 0
  for (let index = 1; index < lines.length; index += 1) {
    const line = headerLine.exec(lines[index] ?? '')
    if (line === null) return undefined
    const value = line[2] ?? ''
    switch ((line[1] ?? '').toLowerCase()) {
      case 'content-length':
        if (!/^[0-9]{1,12}$/.test(value)) return undefined
        lengths += 1
        headers.length = Number(value)
        break
      case 'transfer-encoding':
        if (value.toLowerCase() !== 'chunked' || headers.chunked) return undefined
        headers.chunked = true
        break
      case 'connection':
        headers.close ||= /(^|,)\s*close\s*(,|$)/i.test(value)
        headers.keepAlive ||= /(^|,)\s*keep-alive\s*(,|$)/i.test(value)
        break
      case 'expect':
        headers.expectsContinue = value.toLowerCase() === '100-continue'
        break
      case 'host':
        headers.hosts += 1
        break
    }
  }
  if (lengths > 1 || (lengths > 0 && headers.chunked)) return undefined
  return headers
}

/** Without bytes it is unfinished, and `end` says how much is needed at least. */
type Body = { bytes: Uint8Array | undefined; end: number } | { status: 400 | 413 }

const unfinished: Body = { bytes: undefined, end: 0 }

function readLength(input: Buffer, start: number, length: number): Body {
  if (length >= bodyLimit) return { status: 413 }
  const end = start + length
  if (input.length < end) return { bytes: undefined, end }
  return { bytes: length === 0 ? empty : input.subarray(start, end), end }
}

/** RFC 9112 section 7.1; chunk extensions and trailers are skipped, within bounds. */
function readChunks(input: Buffer, start: number): Body {
  const parts: Buffer[] = []
  let total = 0
  let at = start
  for (;;) {
    const lineEnd = input.indexOf('\r\n', at, 'latin1')
    if (lineEnd < 0) return input.length - at > 1024 ? { status: 400 } : unfinished
    const size = /^([0-9A-Fa-f]{1,8})[ \t]*(;[\t\x20-\x7e]{0,500})?$/.exec(
      input.toString('latin1', at, Math.min(lineEnd, at + 1024)),
    )
    if (size?.[1] === undefined) return { status: 400 }
    const length = Number.parseInt(size[1], 16)
    total += length
    if (total >= bodyLimit) return { status: 413 }
    at = lineEnd + 2
    if (length === 0) break
    if (parts.length === chunkLimit) return { status: 413 }
    if (input.length < at + length + 2) return { bytes: undefined, end: at + length + 2 }
    if (input[at + length] !== 13 || input[at + length + 1] !== 10) return { status: 400 }
    parts.push(input.subarray(at, at + length))
    at += length + 2
  }
  const end = trailersEnd(input, at)
  if (end === undefined) return input.length - at > 4096 ? { status: 400 } : unfinished
  return { bytes: Buffer.concat(parts), end }
}

function trailersEnd(input: Buffer, at: number): number | undefined {
  if (input[at] === 13 && input[at + 1] === 10) return at + 2
  const end = input.indexOf('\r\n\r\n', at, 'latin1')
  return end < 0 ? undefined : end + 4
}
