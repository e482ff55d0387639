import { generatePrimeSync, randomBytes } from 'node:crypto'
import { Secret } from '@holdfast/base'
import { invert, modulo, toBytes, toNumber } from './curve.ts'
import { cryptoFault } from './faults.ts'

// Shamir's secret sharing as the clevis `sss` pin does it: a polynomial over the integers modulo a
// fresh 256-bit safe prime. A share is x and y, 32 bytes each. BigInt time depends on its
// operands: this runs only where the whole secret is present anyway.

const width = 32

/** Bytes of one share: x, then y, big-endian. */
export const shareLength = 2 * width

export interface Split {
  /** The prime modulus, 32 bytes big-endian. Public. */
  readonly prime: Buffer
  /** The shared secret: uniform in [0, p), 32 bytes big-endian. */
  readonly secret: Secret
  readonly shares: Secret[]
}

/** Makes a new random secret and `count` shares of it, any `threshold` of which give it back. */
export function splitNewSecret(threshold: number, count: number): Split {
  if (!(Number.isInteger(threshold) && threshold >= 1 && threshold <= count && count <= 255)) {
    throw cryptoFault('crypto.shares_malformed', `cannot make ${threshold} of ${count} shares`)
  }
  const p = generatePrimeSync(width * 8, { safe: true, bigint: true })
  const coefficients = Array.from({ length: threshold }, () => below(p))
  const xs = new Set<bigint>()
  while (xs.size < count) {
    const x = below(p)
    if (x !== 0n) xs.add(x) // f(0) is the secret itself
  }
  const shares = [...xs].map((x) => {
    const y = coefficients.reduceRight((sum, coefficient) => modulo(sum * x + coefficient, p), 0n)
    return Secret.take(Buffer.concat([toBytes(x, width), toBytes(y, width)]))
  })
  return {
    prime: toBytes(p, width),
    secret: Secret.take(toBytes(coefficients[0] ?? 0n, width)),
    shares,
  }
}

/** A uniform number in [0, p) by rejection. */
function below(p: bigint): bigint {
  for (;;) {
    const value = toNumber(randomBytes(width))
    if (value < p) return value
  }
}

/**
 * Combines exactly the shares given, by Lagrange interpolation at zero.
 * @throws Fault crypto.shares_malformed for a wrong length, a value outside the field, or a
 *   duplicate share; crypto.shares_insufficient for none; crypto.point_invalid when the modulus
 *   is not prime after all and it shows
 */
export function combineShares(shares: readonly Secret[], prime: Uint8Array): Secret {
  const p = toNumber(prime)
  if (prime.length !== width || p % 2n === 0n || p < 2n ** 255n) {
    throw cryptoFault('crypto.shares_malformed', 'the modulus is not a 256-bit prime')
  }
  if (shares.length === 0) throw cryptoFault('crypto.shares_insufficient', 'there is no share')
  const points = shares.map((share) => readShare(share, p))
  if (new Set(points.map(({ x }) => x)).size !== points.length) {
    throw cryptoFault('crypto.shares_malformed', 'two shares are the same')
  }
  let secret = 0n
  for (const { x, y } of points) {
    let [numerator, denominator] = [y, 1n]
    for (const other of points) {
      if (other.x === x) continue
      numerator = modulo(numerator * other.x, p)
      denominator = modulo(denominator * (other.x - x), p)
    }
    secret = modulo(secret + numerator * invert(denominator, p), p)
  }
  return Secret.take(toBytes(secret, width))
}

function readShare(share: Secret, p: bigint): { x: bigint; y: bigint } {
  if (share.length !== shareLength) {
    throw cryptoFault(
      'crypto.shares_malformed',
      `a share is ${share.length} bytes, not ${shareLength}`,
    )
  }
  const x = toNumber(share.reveal().subarray(0, width))
  const y = toNumber(share.reveal().subarray(width))
  if (x === 0n || x >= p || y >= p) {
    throw cryptoFault('crypto.shares_malformed', 'a share lies outside the field')
  }
  return { x, y }
}
