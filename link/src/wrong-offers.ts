import { sourceOf } from './source-of.ts'

// Who has made wrong offers to an enrolment port. Three replaced codes' worth of them, and a source is
// not heard for an hour, so that one stranger cannot take every code away before somebody has typed it.

const hour = 3_600_000

export interface WrongOffersOptions {
  /** Wrong offers after which a source is not heard. */
  most: number
  /** Sources that are remembered. Default 1,000. */
  sources?: number
  /** Milliseconds that only ever go forward. */
  monotonic: () => number
}

interface Count {
  wrong: number
  at: number
}

/**
 * Counts wrong offers by source. Room for a new source is made by one that is still heard, never by
 * one that is not: else whoever has many addresses would be heard again with each of them. Where none
 * is heard any more, all new ones are counted together.
 */
export class WrongOffers {
  readonly #options: WrongOffersOptions
  readonly #sources: number
  /** Who was wrong longest ago is first. */
  readonly #counts = new Map<string, Count>()
  #others: Count = { wrong: 0, at: 0 }

  constructor(options: WrongOffersOptions) {
    this.#options = options
    this.#sources = options.sources ?? 1_000
  }

  /** Says whether this address is not heard now. */
  isRefused(address: string): boolean {
    this.#forgetOld()
    const source = sourceOf(address)
    if (this.#hasRoom(source)) return this.#isFull(this.#counts.get(source))
    return this.#isFull(this.#others)
  }

  /** A wrong offer came from this address. */
  count(address: string): void {
    this.#forgetOld()
    const source = sourceOf(address)
    const at = this.#options.monotonic()
    if (!this.#hasRoom(source)) {
      this.#others = { wrong: this.#others.wrong + 1, at }
      return
    }
    const wrong = (this.#counts.get(source)?.wrong ?? 0) + 1
    if (!this.#counts.delete(source) && this.#counts.size >= this.#sources)
      this.#counts.delete(this.#oldestHeard() ?? '')
    this.#counts.set(source, { wrong, at })
  }

  #hasRoom(source: string): boolean {
    if (this.#counts.has(source) || this.#counts.size < this.#sources) return true
    return this.#oldestHeard() !== undefined
  }

  #oldestHeard(): string | undefined {
    for (const [source, count] of this.#counts) if (!this.#isFull(count)) return source
    return undefined
  }

  #isFull(count: Count | undefined): boolean {
    return count !== undefined && count.wrong >= this.#options.most
  }

  #forgetOld(): void {
    const since = this.#options.monotonic() - hour
    for (const [source, { at }] of this.#counts) {
      if (at > since) break
      this.#counts.delete(source)
    }
    if (this.#others.at <= since) this.#others = { wrong: 0, at: 0 }
  }
}
