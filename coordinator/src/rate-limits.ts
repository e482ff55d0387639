import type { Clock } from '@holdfast/base'
import { sourceOf } from '@holdfast/link'
import { userFault } from './user-faults.ts'

interface Bucket {
  tokens: number
  at: number
}

/** What one source may do in a minute. */
export interface PerMinute {
  /** Requests of any kind. */
  all: number
  /** Those that strangers may make. */
  open: number
  logins: number
}

const mostSources = 20_000

/**
 * Token buckets per source: one for all requests and a smaller one for what strangers may ask, so
 * that junk cannot crowd out the people who are needed. Memory is bounded. What must outlive a
 * restart (guesses of passwords) is counted in the store instead: login-attempts.ts.
 */
export class RateLimits {
  readonly #clock: Clock
  #perMinute: PerMinute
  readonly #buckets = new Map<string, Bucket>()

  constructor(clock: Clock, perMinute: PerMinute) {
    this.#clock = clock
    this.#perMinute = perMinute
  }

  get logins(): number {
    return this.#perMinute.logins
  }

  /** Takes other limits over, as a new manifest has them. */
  adjust(perMinute: PerMinute): void {
    this.#perMinute = perMinute
  }

  /** Counts any request. @throws Fault user.too_many_requests with the seconds to wait */
  take(address: string): void {
    this.#spend(`all ${sourceOf(address)}`, this.#perMinute.all)
  }

  /** Counts one that nobody has to sign in for. @throws Fault user.too_many_requests */
  takeOpen(address: string): void {
    this.#spend(`open ${sourceOf(address)}`, this.#perMinute.open)
  }

  #spend(name: string, perMinute: number): void {
    const now = this.#clock.now()
    const bucket = this.#buckets.get(name) ?? { tokens: perMinute, at: now }
    // A clock that was set back must not keep anybody out until it is there again.
    bucket.at = Math.min(bucket.at, now)
    const tokens = Math.min(perMinute, bucket.tokens + ((now - bucket.at) / 60_000) * perMinute)
    if (tokens < 1) throw tooMany(Math.ceil(((1 - tokens) / perMinute) * 60))
    this.#buckets.delete(name) // kept in order of last use, oldest first
    this.#buckets.set(name, { tokens: tokens - 1, at: now })
    if (this.#buckets.size > mostSources)
      this.#buckets.delete(this.#buckets.keys().next().value ?? '')
  }
}

/** user.too_many_requests; `retryAfter` in seconds. */
export function tooMany(retryAfter: number): Error {
  return userFault('user.too_many_requests', `too many requests: wait ${retryAfter} s`, {
    details: { retryAfter },
  })
}
