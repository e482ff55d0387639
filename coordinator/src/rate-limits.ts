import type { Clock } from '@holdfast/base'
import { userFault } from './user-faults.ts'

interface Bucket {
  tokens: number
  at: number
}

const mostAddresses = 20_000

/**
 * Token buckets per source address: one for all requests and a smaller one for what strangers may
 * ask, so that junk cannot crowd out the people who are needed. Memory is bounded.
 */
export class RateLimits {
  readonly #clock: Clock
  readonly #perMinute: { all: number; open: number }
  readonly #buckets = new Map<string, Bucket>()

  constructor(clock: Clock, perMinute: { all: number; open: number }) {
    this.#clock = clock
    this.#perMinute = perMinute
  }

  /** @throws Fault user.too_many_requests with the seconds to wait */
  take(address: string, open: boolean): void {
    this.#spend(`all ${address}`, this.#perMinute.all)
    if (open) this.#spend(`open ${address}`, this.#perMinute.open)
  }

  #spend(name: string, perMinute: number): void {
    const now = this.#clock.now()
    const bucket = this.#buckets.get(name) ?? { tokens: perMinute, at: now }
    const tokens = Math.min(perMinute, bucket.tokens + ((now - bucket.at) / 60_000) * perMinute)
    if (tokens < 1) {
      const retryAfter = Math.ceil(((1 - tokens) / perMinute) * 60)
      throw userFault('user.too_many_requests', `too many requests: wait ${retryAfter} s`, {
        details: { retryAfter },
      })
    }
    this.#buckets.delete(name) // kept in order of last use, oldest first
    this.#buckets.set(name, { tokens: tokens - 1, at: now })
    if (this.#buckets.size > mostAddresses)
      this.#buckets.delete(this.#buckets.keys().next().value ?? '')
  }
}
