import { isFault, messageOf, parseJson } from '@holdfast/base'
import { WebSocket } from 'ws'
import { z } from 'zod'
import { type CloseCode, type Closed, closedBy } from './close-reasons.ts'
import { linkFault } from './faults.ts'

// One WebSocket connection, the same at both ends. A message is `{"frame": …}`, with a `number` when
// the sender wants to know that it was taken in, or `{"ack": [numbers]}`. Frames are handled one at
// a time in their order, and a number is acknowledged only after its handler has finished, which is
// after everything durable. So a frame without acknowledgement may have been handled: handlers must
// bear a second delivery.

const ackSchema = z.array(z.number().int().nonnegative()).max(4096)
const numberSchema = z.number().int().nonnegative().optional()

export interface ChannelLimits {
  /** Unsent bytes above which the connection is given up: the other end is too slow. */
  unsent: number
  /** Received frames that wait for their turn before reading from the socket stops. */
  waiting: number
}

export const defaultLimits: ChannelLimits = { unsent: 8 * 1024 * 1024, waiting: 128 }

export interface ChannelOptions<In> {
  /** Throws on anything that is not a frame. */
  parse(value: unknown): In
  onFrame(frame: In): Promise<void> | void
  onAck(numbers: readonly number[]): void
  limits?: ChannelLimits
  /** Milliseconds that only ever go forward. */
  monotonic(): number
}

export class Channel<Out, In> {
  /** When the other end was last heard, on the scale of `monotonic`. */
  heardAt: number
  readonly closed: Promise<Closed>
  readonly #socket: WebSocket
  readonly #options: ChannelOptions<In>
  readonly #limits: ChannelLimits
  readonly #waiting: { frame: In; number: number | undefined }[] = []
  #working = false
  #work: Promise<void> = Promise.resolve()
  #ending: Closed | undefined
  #acks: number[] = []

  constructor(socket: WebSocket, options: ChannelOptions<In>) {
    this.#socket = socket
    this.#options = options
    this.#limits = options.limits ?? defaultLimits
    this.heardAt = options.monotonic()
    this.closed = new Promise((resolve) => {
      socket.once('close', (code, text) => {
        resolve(this.#ending ?? closedBy(code, text.toString('utf8')))
      })
    })
    socket.on('error', () => undefined) // `close` follows and says why
    socket.on('pong', () => {
      this.heardAt = options.monotonic()
    })
    socket.on('message', (data, binary) => this.#receive(data.toString(), binary))
  }

  get isOpen(): boolean {
    return this.#socket.readyState === WebSocket.OPEN
  }

  /**
   * Sends a frame; resolves when the system has taken its bytes, so that awaiting it slows a fast
   * sender down. @throws Fault link.session_closed
   */
  async send(frame: Out, number?: number): Promise<void> {
    await this.#write(JSON.stringify(number === undefined ? { frame } : { frame, number }))
  }

  /** Closes with a reason; the other end is given two seconds to agree. */
  close(code: CloseCode, text: string): void {
    this.#ending ??= closedBy(code, text)
    // 1006 says that there was no closing frame, so it must not be sent (RFC 6455 7.4.1).
    if (code === 1006) {
      this.#socket.terminate()
      return
    }
    this.#socket.close(code, Buffer.from(text, 'utf8').subarray(0, 120).toString('utf8'))
    const timer = setTimeout(() => this.#socket.terminate(), 2_000)
    this.#socket.once('close', () => clearTimeout(timer))
  }

  /** Asks for a sign of life below the level of frames; resolves when it comes. */
  async probe(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#socket.once('pong', () => resolve())
      this.#socket.ping()
    })
  }

  /** Resolves when no received frame is being handled any more; after the end no other comes. */
  async handled(): Promise<void> {
    await this.#work
  }

  #write(text: string): Promise<void> {
    if (!this.isOpen) return Promise.reject(sessionClosed())
    if (this.#socket.bufferedAmount > this.#limits.unsent) {
      this.close(4413, `more than ${this.#limits.unsent} bytes were not taken`)
      return Promise.reject(sessionClosed())
    }
    return new Promise((resolve, reject) => {
      this.#socket.send(text, (error) => (error == null ? resolve() : reject(sessionClosed(error))))
    })
  }

  #receive(text: string, binary: boolean): void {
    this.heardAt = this.#options.monotonic()
    try {
      if (binary) throw linkFault('link.frame_invalid', 'a binary message')
      this.#take(parseJson(text, 'a message', text.length))
    } catch (error) {
      this.close(4400, messageOf(error))
    }
  }

  #take(message: unknown): void {
    const { frame, number, ack } = (message ?? {}) as Record<string, unknown> // each member is parsed below
    if (ack !== undefined) {
      this.#options.onAck(ackSchema.parse(ack))
      return
    }
    this.#waiting.push({ frame: this.#options.parse(frame), number: numberSchema.parse(number) })
    if (this.#waiting.length >= this.#limits.waiting) this.#socket.pause()
    if (!this.#working) this.#work = this.#handleAll()
  }

  async #handleAll(): Promise<void> {
    this.#working = true
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      try {
        await this.#options.onFrame(next.frame)
      } catch (error) {
        this.close(4500, isFault(error) ? error.message : 'a frame could not be handled')
        break
      }
      if (next.number !== undefined) this.#acknowledge(next.number)
      if (this.#waiting.length < this.#limits.waiting / 2 && this.#socket.isPaused)
        this.#socket.resume()
    }
    this.#working = false
  }

  /** Gathers the acknowledgements of one turn of the event loop into one message. */
  #acknowledge(number: number): void {
    this.#acks.push(number)
    if (this.#acks.length > 1) return
    setImmediate(() => {
      const ack = this.#acks
      this.#acks = []
      this.#write(JSON.stringify({ ack })).catch(() => undefined) // it is sent again, and acknowledged then
    })
  }
}

/** link.session_closed. */
export function sessionClosed(cause?: unknown): Error {
  return linkFault('link.session_closed', 'the session has ended', { cause })
}

/** Makes a parser of a frame schema; what it throws names the first thing that is wrong. */
export function parserOf<T>(schema: z.ZodType<T>): (value: unknown) => T {
  return (value) => {
    const parsed = schema.safeParse(value)
    if (parsed.success) return parsed.data
    const issue = parsed.error.issues[0]
    const place = issue?.path.join('.') || 'the frame'
    throw linkFault('link.frame_invalid', `${place}: ${issue?.message ?? 'not understood'}`)
  }
}
