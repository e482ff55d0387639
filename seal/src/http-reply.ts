import { sealFault } from './faults.ts'

// Reads one HTTP/1.1 reply (RFC 9112) from bytes as they come. Only what a key server's reply can be:
// a status, a few headers, a small body by length, in chunks, or until the end. Every size is
// bounded and anything odd is a fault, because the other side may be anybody.

export interface HttpReply {
  status: number
  body: string
  /** Seconds the server asked to wait, from Retry-After, if it was a number. */
  retryAfter?: number
}

const headLimit = 16_384
const statusLine = /^HTTP\/1\.[01] (\d{3})(?: [^\r\n]*)?$/
const fieldLine = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/

interface Head {
  status: number
  fields: ReadonlyMap<string, string>
  /** Offset of the body in the bytes so far. */
  end: number
}

/** Gathers bytes until they are a whole reply. */
export class ReplyReader {
  readonly #origin: string
  readonly #most: number
  #bytes = Buffer.alloc(0)
  #head: Head | undefined

  /** `most` bounds the body, in bytes; `origin` names the server in faults. */
  constructor(origin: string, most: number) {
    this.#origin = origin
    this.#most = most
  }

  /** Takes more bytes; the reply, once it is whole. @throws Fault seal.server_reply_invalid */
  add(chunk: Buffer): HttpReply | undefined {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
    // Chunk sizes and their lines come on top of the body itself.
    if (this.#bytes.length > headLimit + 2 * this.#most) throw this.#tooLarge()
    return this.#read(false)
  }

  /** The server has closed the connection; the reply, if its end is what ends it. */
  end(): HttpReply | undefined {
    return this.#read(true)
  }

  #read(ended: boolean): HttpReply | undefined {
    this.#head ??= this.#readHead()
    const head = this.#head
    if (head === undefined) return undefined
    const body = this.#readBody(head, ended)
    if (body === undefined) return undefined
    if (body.length > this.#most) throw this.#tooLarge()
    const retryAfter = Number(head.fields.get('retry-after') ?? Number.NaN)
    return {
      status: head.status,
      body: body.toString('utf8'),
      ...(Number.isFinite(retryAfter) ? { retryAfter } : {}),
    }
  }

  #readHead(): Head | undefined {
    for (;;) {
      const end = this.#bytes.indexOf('\r\n\r\n')
      if (end === -1) {
        if (this.#bytes.length > headLimit) throw this.#invalid('its head is too long')
        if (this.#bytes.length >= 5 && !this.#bytes.subarray(0, 5).equals(Buffer.from('HTTP/'))) {
          throw this.#invalid('it is not HTTP')
        }
        return undefined
      }
      const head = this.#parseHead(this.#bytes.subarray(0, end).toString('latin1'), end + 4)
      if (head.status >= 200) return head
      this.#bytes = this.#bytes.subarray(head.end) // an interim reply; the real one follows
    }
  }

  #parseHead(text: string, end: number): Head {
    const [first = '', ...lines] = text.split('\r\n')
    const status = statusLine.exec(first)?.[1]
    if (status === undefined) throw this.#invalid('its status line cannot be read')
    const fields = new Map<string, string>()
    for (const line of lines) {
      const [, name = '', value = ''] = fieldLine.exec(line) ?? []
      if (name === '') throw this.#invalid('a header line cannot be read')
      const key = name.toLowerCase()
      if (key === 'content-length' && fields.has(key) && fields.get(key) !== value) {
        throw this.#invalid('it states two lengths')
      }
      fields.set(key, value)
    }
    return { status: Number(status), fields, end }
  }

  #readBody({ status, fields, end }: Head, ended: boolean): Buffer | undefined {
    const rest = this.#bytes.subarray(end)
    if (status === 204 || status === 304) return Buffer.alloc(0)
    const encoding = fields.get('transfer-encoding')
    if (encoding !== undefined) {
      if (encoding.toLowerCase() !== 'chunked') throw this.#invalid('its encoding is unknown')
      return this.#readChunks(rest)
    }
    const length = fields.get('content-length')
    if (length === undefined) return ended ? rest : undefined
    if (!/^\d{1,9}$/.test(length)) throw this.#invalid('its length is not a number')
    if (Number(length) > this.#most) throw this.#tooLarge()
    return rest.length < Number(length) ? undefined : rest.subarray(0, Number(length))
  }

  #readChunks(rest: Buffer): Buffer | undefined {
    const chunks: Buffer[] = []
    let at = 0
    let size = 0
    for (;;) {
      const line = rest.indexOf('\r\n', at)
      if (line === -1) return undefined
      const [digits = ''] = rest.subarray(at, line).toString('latin1').split(';')
      if (!/^[0-9A-Fa-f]{1,8}$/.test(digits.trim())) throw this.#invalid('a chunk has no size')
      const length = Number.parseInt(digits, 16)
      size += length
      if (size > this.#most) throw this.#tooLarge()
      if (length === 0) return Buffer.concat(chunks) // trailers say nothing that is needed
      if (rest.length < line + 2 + length + 2) return undefined
      chunks.push(rest.subarray(line + 2, line + 2 + length))
      at = line + 2 + length + 2
    }
  }

  #tooLarge(): Error {
    return sealFault(
      'seal.server_reply_invalid',
      `${this.#origin} sent more than ${this.#most} bytes`,
    )
  }

  #invalid(reason: string): Error {
    return sealFault(
      'seal.server_reply_invalid',
      `${this.#origin} sent an invalid reply: ${reason}`,
    )
  }
}
