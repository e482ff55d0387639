/** What one server process grants; times in milliseconds. */
export interface Limits {
  /** From the first byte of a request to its last. */
  readonly requestTime: number
  /** A connection without a request. */
  readonly idleTime: number
  /** Open connections; more are answered 503 and closed. */
  readonly connections: number
  /** Open connections of one address, so that no one client keeps all others out. */
  readonly connectionsPerAddress: number
  /** Recoveries waiting for the processor; more are answered 503. */
  readonly queue: number
  /** Requests per second granted to one address for ever; 0 for no limit. */
  readonly rate: number
  /** Requests granted to one address at once. */
  readonly burst: number
  /** Seconds a refused client is told to wait. */
  readonly retryAfter: number
}

export const defaultLimits: Limits = {
  requestTime: 5_000,
  idleTime: 10_000,
  connections: 4_096,
  connectionsPerAddress: 2_048,
  queue: 2_000,
  rate: 1_000,
  burst: 5_000,
  retryAfter: 2,
}

const addressLimit = 50_000

/** A token bucket per address; an IPv6 network of 64 bits counts as one address. */
export class RateLimiter {
  readonly #rate: number
  readonly #burst: number
  readonly #buckets = new Map<string, { tokens: number; at: number }>()

  constructor(rate: number, burst: number) {
    this.#rate = rate
    this.#burst = burst
  }

  /** Takes one token; false when there is none. `now` in milliseconds on any steady clock. */
  take(address: string, now: number): boolean {
    if (this.#rate === 0) return true
    const name = networkOf(address)
    const bucket = this.#buckets.get(name)
    if (bucket === undefined) {
      if (this.#buckets.size >= addressLimit) this.prune(now)
      this.#buckets.set(name, { tokens: this.#burst - 1, at: now })
      return true
    }
    const earned = ((now - bucket.at) / 1000) * this.#rate
    bucket.tokens = Math.min(this.#burst, bucket.tokens + earned)
    bucket.at = now
    if (bucket.tokens < 1) return false
    bucket.tokens -= 1
    return true
  }

  /** Forgets the addresses whose bucket is full again; all of them if that frees nothing. */
  prune(now: number): void {
    for (const [name, { tokens, at }] of this.#buckets) {
      if (tokens + ((now - at) / 1000) * this.#rate >= this.#burst) this.#buckets.delete(name)
    }
    if (this.#buckets.size >= addressLimit) this.#buckets.clear()
  }
}

/** The part of an address that one machine cannot choose freely. */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address
  if (address.startsWith('::ffff:')) return address.slice(7)
  const [head = '', tail = ''] = address.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === '' ? [] : tail.split(':')
  const gap = address.includes('::') ? 8 - left.length - right.length : 0
  const groups = [...left, ...Array.from({ length: Math.max(gap, 0) }, () => '0'), ...right]
  return `${groups.slice(0, 4).join(':')}/64`
}
