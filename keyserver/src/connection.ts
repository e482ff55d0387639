import type { Socket } from 'node:net'
import { type Parsed, parseRequest, type Request } from './request.ts'
import { emptyReply } from './wire.ts'

// One client connection. Requests on it are answered one after the other, in order; while one is in
// work the next ones stay in the buffer. Deadlines are kept as numbers and swept by the server: a
// timer per connection would cost more than the connection.

/** What a connection needs from its server. */
export interface ConnectionHost {
  readonly requestTime: number
  readonly idleTime: number
  /** Milliseconds on a steady clock. */
  now(): number
  /** Answers the request by calling `connection.reply` exactly once, now or later. */
  handle(request: Request, connection: Connection): void
  closed(connection: Connection): void
}

const bufferLimit = 128 * 1024
const unreadLimit = 1024 * 1024
const lingerTime = 2_000

export class Connection {
  readonly address: string
  readonly #socket: Socket
  readonly #host: ConnectionHost
  #chunks: Buffer[] = []
  #size = 0
  /** With fewer bytes than this in the buffer there is nothing to parse. */
  #need = 1
  #state: 'idle' | 'reading' | 'working' | 'closing' = 'idle'
  #parsing = false
  #keepAlive = true
  #ended = false
  #continued = false
  #deadline: number

  constructor(socket: Socket, host: ConnectionHost) {
    this.#socket = socket
    this.#host = host
    this.address = socket.remoteAddress ?? 'unknown'
    this.#deadline = host.now() + host.idleTime
    socket.on('data', (chunk: Buffer) => this.#received(chunk))
    socket.on('end', () => this.#finished())
    socket.on('error', () => this.destroy()) // the client is gone; nobody is left to tell
    socket.on('close', () => host.closed(this))
  }

  /** True while a client waits for its answer on it. */
  get alive(): boolean {
    return !this.#socket.destroyed && this.#socket.writable
  }

  /** Sends the whole reply to the request in work and turns to the next. */
  reply(text: string): void {
    if (this.#state !== 'working') return
    if (this.#socket.writableLength > unreadLimit) this.destroy()
    else if (!this.#keepAlive || (this.#ended && this.#size === 0)) this.close(text)
    else this.#answer(text)
  }

  #answer(text: string): void {
    this.#socket.write(text, 'latin1')
    this.#state = 'idle'
    this.#deadline = this.#host.now() + this.#host.idleTime
    if (this.#socket.isPaused()) this.#socket.resume()
    if (!this.#parsing) this.#parse()
  }

  /** Sends a last reply and closes; what still arrives is read and dropped, or it would be lost to a reset. */
  close(text: string): void {
    this.#end()
    this.#deadline = this.#host.now() + lingerTime
    this.#socket.end(text, 'latin1')
  }

  /** Ends the connection if its time is up, but for the milliseconds that the server stood still. */
  sweep(now: number, stood: number): void {
    this.#deadline += stood
    if (now < this.#deadline || this.#state === 'working') return
    if (this.#state === 'reading') this.close(emptyReply(408, 'Connection: close\r\n'))
    else this.destroy()
  }

  /** Ends it now if no answer is owed, otherwise after that answer. */
  retire(): void {
    this.#keepAlive = false
    if (this.#state === 'idle') this.#socket.end()
  }

  destroy(): void {
    this.#end()
    this.#socket.destroy()
  }

  #end(): void {
    this.#state = 'closing'
    this.#chunks = []
    this.#size = 0
  }

  #received(chunk: Buffer): void {
    if (this.#state === 'closing') return
    this.#chunks.push(chunk)
    this.#size += chunk.length
    if (this.#state !== 'working') this.#parse()
    else if (this.#size > bufferLimit) this.#socket.pause()
  }

  #finished(): void {
    this.#ended = true
    if (this.#state === 'reading') this.destroy()
    else if (this.#state === 'idle') this.#socket.end()
  }

  /** Takes requests from the buffer for as long as each is answered at once. A loop, not a recursion. */
  #parse(): void {
    this.#parsing = true
    while (this.#size >= this.#need && (this.#state === 'idle' || this.#state === 'reading')) {
      const [first = Buffer.of()] = this.#chunks
      const input = this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks)
      const parsed = parseRequest(input)
      if (parsed.kind === 'request') this.#accept(input, parsed.request)
      else if (parsed.kind === 'broken') this.#refuse(parsed)
      else if (this.#ended) this.destroy()
      else this.#wait(input, parsed)
    }
    this.#parsing = false
  }

  #wait(input: Buffer, { need, expectsContinue }: Extract<Parsed, { kind: 'more' }>): void {
    this.#chunks = [input]
    this.#need = Math.max(need, input.length + 1)
    if (this.#state === 'idle') {
      this.#state = 'reading'
      this.#deadline = this.#host.now() + this.#host.requestTime
    }
    if (expectsContinue && !this.#continued) {
      this.#continued = true
      this.#socket.write('HTTP/1.1 100 Continue\r\n\r\n', 'latin1')
    }
  }

  #accept(input: Buffer, request: Request): void {
    this.#state = 'working'
    this.#need = 1
    this.#continued = false
    this.#keepAlive &&= request.keepAlive
    this.#size = input.length - request.length
    this.#chunks = this.#size > 0 ? [input.subarray(request.length)] : []
    this.#host.handle(request, this)
  }

  #refuse({ status }: Extract<Parsed, { kind: 'broken' }>): void {
    if (status === 0) this.destroy()
    else this.close(emptyReply(status, 'Connection: close\r\n'))
  }
}
