import { connect, type Socket } from 'node:net'

// The measuring client: raw bytes over `net`, because it shares the processor with what it measures.
// It knows as much HTTP as it takes to find the end of a reply that states its length.

/** Called once per reply, with its status and the whole reply, or with 0 when there was none. */
export type OnReply = (status: number, reply: Buffer) => void

/**
 * How requests use connections:
 * - `new-connection`: one each, closed by the client after the reply, as curl does;
 * - `keep-alive`: one connection, the next request after the reply, as an ordinary client does;
 * - `keep-alive-quick-ack`: the same by a client that acknowledges every packet at once. A server
 *   that writes a reply in two small pieces is otherwise held up by Nagle's algorithm, which
 *   keeps the second back until the first is acknowledged, and clients delay that by 40 ms.
 *   Node cannot set TCP_QUICKACK, so the client sends the first line of its next request as soon as
 *   part of a reply arrives: an acknowledgement travels with it.
 */
export type Mode = 'new-connection' | 'keep-alive' | 'keep-alive-quick-ack'

/** The length of the reply at the start of `bytes`, or 0 while it is incomplete. */
export function replyLength(bytes: Buffer): number {
  const head = bytes.indexOf('\r\n\r\n', 0, 'latin1')
  if (head < 0) return 0
  const stated = /\r\ncontent-length: *([0-9]+)/i.exec(bytes.toString('latin1', 0, head))
  const length = head + 4 + Number(stated?.[1] ?? 0)
  return bytes.length < length ? 0 : length
}

/** The status in `HTTP/1.1 NNN …`, or 0. */
export function replyStatus(bytes: Buffer): number {
  return bytes.length < 12 ? 0 : Number(bytes.toString('latin1', 9, 12)) || 0
}

/** Opens a connection, sends one request, reports its reply or its end, and closes. */
export function exchangeOnce(port: number, request: Buffer, onReply: OnReply): void {
  let received: Buffer | undefined
  let owed = true
  const settle = (status: number, reply: Buffer) => {
    if (!owed) return
    owed = false
    socket.destroy()
    onReply(status, reply)
  }
  const socket = connect({ port, host: '127.0.0.1', noDelay: true, autoSelectFamily: false })
  socket.on('data', (chunk: Buffer) => {
    received = received === undefined ? chunk : Buffer.concat([received, chunk])
    const length = replyLength(received)
    if (length > 0) settle(replyStatus(received), received.subarray(0, length))
  })
  socket.on('error', () => settle(0, Buffer.alloc(0)))
  socket.on('close', () => settle(0, Buffer.alloc(0)))
  socket.write(request)
}

/** One connection kept open for many requests, one at a time. It reports its loss once. */
export class KeptConnection {
  readonly #socket: Socket
  readonly #onReply: OnReply
  readonly #onPart: () => void
  #received: Buffer | undefined
  #closed = false

  /** `onPart` is called when a part of a reply has arrived and the rest has not. */
  constructor(port: number, onReply: OnReply, onPart: () => void = () => undefined) {
    this.#onReply = onReply
    this.#onPart = onPart
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true, autoSelectFamily: false })
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    this.#socket.on('error', () => this.#lose())
    this.#socket.on('close', () => this.#lose())
  }

  write(bytes: Buffer): void {
    this.#socket.write(bytes)
  }

  close(): void {
    this.#closed = true
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    const received = this.#received === undefined ? chunk : Buffer.concat([this.#received, chunk])
    const length = replyLength(received)
    this.#received = length === 0 ? received : undefined
    if (length === 0) this.#onPart()
    else this.#onReply(replyStatus(received), received)
  }

  #lose(): void {
    if (this.#closed) return
    this.#closed = true
    this.#onReply(0, Buffer.alloc(0))
  }
}
