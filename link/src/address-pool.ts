import { linkFault } from './faults.ts'

/** A range of IPv4 addresses for tunnels, such as 10.88.0.0/16: 65,534 hosts. */
export interface AddressPool {
  /** The network address as a number of 32 bits. */
  base: number
  /** Length of the prefix, 8 to 30. */
  prefix: number
}

/** Host 1 is the coordinator's own; nodes begin after it. */
export const firstNodeHost = 2

/** Reads `a.b.c.d/prefix`; the host part must be zero. @throws Fault link.pool_invalid */
export function parsePool(text: string): AddressPool {
  const [address = '', length = ''] = text.split('/')
  const prefix = /^\d{1,2}$/.test(length) ? Number(length) : 0
  const base = numberOf(address)
  if (base === undefined || prefix < 8 || prefix > 30 || base % size(prefix) !== 0) {
    const what = `"${text.slice(0, 60)}" is not an address pool`
    throw linkFault('link.pool_invalid', what, {
      hint: 'give a network such as 10.88.0.0/16, with a prefix of 8 to 30 and no host part',
    })
  }
  return { base, prefix }
}

/** How many hosts the pool has, without its network and broadcast addresses. */
export function hostsOf({ prefix }: AddressPool): number {
  return size(prefix) - 2
}

/** The address of a host, counted from 1. @throws Fault link.pool_invalid beyond the pool */
export function addressAt(pool: AddressPool, host: number): string {
  if (!Number.isInteger(host) || host < 1 || host > hostsOf(pool))
    throw linkFault('link.pool_invalid', `the pool has no host ${host}`)
  const value = pool.base + host
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.')
}

/** The host number of an address, or undefined when it is not a host of this pool. */
export function hostOf(pool: AddressPool, address: string): number | undefined {
  const value = numberOf(address)
  if (value === undefined) return undefined
  const host = value - pool.base
  return host >= 1 && host <= hostsOf(pool) ? host : undefined
}

/** The lowest host from `firstNodeHost` on that is not taken, or undefined when the pool is full. */
export function lowestFree(pool: AddressPool, taken: ReadonlySet<number>): number | undefined {
  const hosts = hostsOf(pool)
  for (let host = firstNodeHost; host <= hosts; host += 1) if (!taken.has(host)) return host
  return undefined
}

function size(prefix: number): number {
  return 2 ** (32 - prefix)
}

/** Four decimal numbers without leading zeros: some readers take those for octal. */
function numberOf(address: string): number | undefined {
  const parts = address.split('.')
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part)))
    return undefined
  const bytes = parts.map(Number)
  return bytes.every((byte) => byte < 256)
    ? bytes.reduce((sum, byte) => sum * 256 + byte, 0)
    : undefined
}
