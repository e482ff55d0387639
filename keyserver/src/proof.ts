import { Secret } from '@holdfast/base'
import {
  blind,
  exchangeKey,
  generateEcKey,
  jwkOf,
  pointOf,
  signAdvertisement,
  toBytes,
  verifyAdvertisement,
} from '@holdfast/crypto'
import { keyserverFault } from './faults.ts'
import { advertisedJwk, type KeyMaterial, type StoredKey } from './key.ts'

// Proof that keys do what bindings need of them, by doing it: a whole recovery for an exchange key, an
// advertisement signed and verified for a signing key.

/**
 * Plays a client that bound to the exchange key and now recovers its secret from it.
 * @throws Fault keyserver.backup_unverified
 */
export function proveExchange({ kid, privateKey, publicKey }: KeyMaterial): void {
  if (privateKey === undefined) return
  const client = generateEcKey(publicKey.crv)
  using own = exchangeKey(client)
  using server = exchangeKey(privateKey)
  const { size } = own.curve
  using bound = Secret.take(toBytes(own.multiply(pointOf(publicKey)).x, size))
  const { request, unblind } = blind(client, publicKey)
  using recovered = unblind(jwkOf(server.multiply(pointOf(request)), publicKey.crv))
  if (!bound.equals(recovered)) {
    throw keyserverFault(
      'keyserver.backup_unverified',
      `a recovery with the key ${kid} gave another secret`,
    )
  }
}

/**
 * Signs an advertisement with the key, as current or rotated, and verifies it.
 * @throws Fault keyserver.backup_unverified
 */
export async function proveSigning(key: StoredKey, exchange: StoredKey): Promise<void> {
  if (key.privateKey === undefined) return
  try {
    const keys = [advertisedJwk(key), advertisedJwk(exchange)]
    await verifyAdvertisement(await signAdvertisement(keys, [key.privateKey]))
  } catch (cause) {
    throw keyserverFault(
      'keyserver.backup_unverified',
      `the signing key ${key.kid} does not sign what it verifies`,
      { cause },
    )
  }
}

/** Proves every key of a directory or backup; returns the thumbprints proven. */
export async function proveKeys(keys: readonly StoredKey[]): Promise<string[]> {
  const [exchange] = keys.filter((key) => key.use === 'exchange')
  for (const key of keys) {
    if (key.use === 'exchange') proveExchange(key)
    else if (exchange !== undefined) await proveSigning(key, exchange)
  }
  return keys.filter((key) => key.privateKey !== undefined).map((key) => key.kid)
}
