import { createPrivateKey, createPublicKey, diffieHellman } from 'node:crypto'
import { Secret } from '@holdfast/base'
import {
  bareJwk,
  type EcPrivateJwk,
  type ExchangeKey,
  generateEcKey,
  pointOf,
  toBytes,
} from '@holdfast/crypto'
import { keyserverFault } from './faults.ts'

/**
 * Multiplies a random point and compares with OpenSSL, which shares no code with the WebAssembly
 * core: a miscompiled core or a failing processor is noticed before a client is given a wrong answer.
 * @throws Fault keyserver.self_test_failed
 */
export function selfTest(exchange: ExchangeKey, jwk: EcPrivateJwk): void {
  const probe = generateEcKey(jwk.crv)
  const { x } = exchange.multiply(pointOf(probe))
  using ours = Secret.take(toBytes(x, exchange.curve.size))
  const privateKey = createPrivateKey({ key: { ...bareJwk(jwk), d: jwk.d }, format: 'jwk' })
  const publicKey = createPublicKey({ key: { ...bareJwk(probe) }, format: 'jwk' })
  using theirs = Secret.take(diffieHellman({ privateKey, publicKey }))
  if (!ours.equals(theirs)) {
    throw keyserverFault(
      'keyserver.self_test_failed',
      `a ${jwk.crv} multiplication differs from OpenSSL's`,
      { hint: 'do not trust this machine: test its memory and processor' },
    )
  }
}

/** Multiplies until V8 has compiled the hot path; the first replies would take milliseconds more. */
export function warmUp(exchange: ExchangeKey, rounds: number): void {
  let point = pointOf(generateEcKey(exchange.curve.name))
  for (let round = 0; round < rounds; round += 1) point = exchange.multiply(point)
}
