import { linkFault } from './faults.ts'

/** Something that takes a numbered frame; failing is its own business, the frame stays here. */
export type SendNumbered<Out> = (frame: Out, number: number) => void

interface Entry<Out> {
  frame: Out
  bytes: number
  resolve: () => void
  reject: (error: Error) => void
}

/** Frames that the other end has not acknowledged, in their order. */
export class Outbox<Out> {
  readonly #entries = new Map<number, Entry<Out>>()
  readonly #limit: number
  #bytes = 0
  #last = 0

  /** `limit` is in bytes of JSON. */
  constructor(limit: number) {
    this.#limit = limit
  }

  get size(): number {
    return this.#entries.size
  }

  /**
   * Keeps a frame until it is acknowledged and sends it now if `send` is given; the promise resolves
   * on acknowledgement. @throws Fault link.outbox_full
   */
  deliver(frame: Out, send?: SendNumbered<Out>): Promise<void> {
    const bytes = Buffer.byteLength(JSON.stringify(frame))
    if (this.#bytes + bytes > this.#limit) {
      const text = `more than ${this.#limit} bytes wait for the other end`
      return Promise.reject(linkFault('link.outbox_full', text))
    }
    this.#last += 1
    const number = this.#last
    this.#bytes += bytes
    return new Promise((resolve, reject) => {
      this.#entries.set(number, { frame, bytes, resolve, reject })
      send?.(frame, number)
    })
  }

  acknowledge(numbers: readonly number[]): void {
    for (const number of numbers) this.#remove(number)?.resolve()
  }

  /** Sends everything again, after a new connection. */
  resend(send: SendNumbered<Out>): void {
    for (const [number, { frame }] of this.#entries) send(frame, number)
  }

  /** Gives everything up. */
  fail(error: Error): void {
    for (const number of [...this.#entries.keys()]) this.#remove(number)?.reject(error)
  }

  #remove(number: number): Entry<Out> | undefined {
    const entry = this.#entries.get(number)
    if (entry === undefined) return undefined
    this.#entries.delete(number)
    this.#bytes -= entry.bytes
    return entry
  }
}
