import { createPrivateKey, createPublicKey } from 'node:crypto'
import {
  canonicalJson,
  fromBase64url,
  isFault,
  isObject,
  type JsonObject,
  parseJson,
  parseJsonObject,
} from '@holdfast/base'
import { type FlattenedJWSInput, flattenedVerify, GeneralSign } from 'jose'
import { isCurveName } from './curve.ts'
import { cryptoFault } from './faults.ts'
import {
  type AnyJwk,
  bareJwk,
  type EcPrivateJwk,
  type EcPublicJwk,
  parseEcPublicJwk,
  thumbprint,
  thumbprints,
} from './jwk.ts'

// A Tang advertisement: a JWS (RFC 7515) over a JWK set of public signing and exchange keys. Every
// signing key in the payload signs it; after a rotation it can be asked for with the signature of
// an old key as well, which is how trust is carried from the old key to the new without a person.

/** An advertisement whose every advertised signing key's signature has been verified. */
export interface Advertisement {
  /** The advertised keys as they were, private members never included. */
  readonly keys: readonly AnyJwk[]
  readonly signingKeys: readonly EcPublicJwk[]
  readonly exchangeKeys: readonly EcPublicJwk[]
  /** Thumbprints (SHA-256) of every key known to have signed, advertised or not. */
  readonly signedBy: readonly string[]
}

/** Verifying costs milliseconds each: a hostile advertisement must not cost minutes. */
const mostSigners = 16
const mostSignatures = 32

const algorithms = { 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512' } as const

/** The JWS algorithm of a signing key on this curve (RFC 7518 section 3.4). */
export function signingAlgorithm(jwk: EcPublicJwk): string {
  return algorithms[jwk.crv]
}

/** Signs a JWK set; flattened with one signing key, general with several, as tangd prints it. */
export async function signAdvertisement(
  keys: readonly JsonObject[],
  signers: readonly EcPrivateJwk[],
): Promise<string> {
  if (signers.length === 0) throw malformed('there is no signing key')
  const jws = new GeneralSign(Buffer.from(canonicalJson({ keys }), 'utf8'))
  for (const jwk of signers) {
    const key = createPrivateKey({ key: { ...bareJwk(jwk), d: jwk.d }, format: 'jwk' })
    jws.addSignature(key).setProtectedHeader({ alg: signingAlgorithm(jwk), cty: 'jwk-set+json' })
  }
  const { payload, signatures } = await jws.sign()
  const [first] = signatures
  return JSON.stringify(signatures.length === 1 ? { payload, ...first } : { payload, signatures })
}

/**
 * Verifies an advertisement: every key in it that may verify must have signed it. `known` are
 * further public keys whose signature counts, such as the ones an older advertisement carried.
 * @throws Fault crypto.advertisement_malformed, crypto.advertisement_unsigned
 */
export async function verifyAdvertisement(
  text: string | JsonObject,
  known: readonly AnyJwk[] = [],
): Promise<Advertisement> {
  const jws = typeof text === 'string' ? readJws(text) : text
  const keys = payloadKeys(jws.payload)
  const signatures = signaturesOf(jws)
  const signingKeys = keys.filter(isSigningKey).map(signingKey)
  const exchangeKeys = keys
    .filter((key) => isOnKnownCurve(key) && mayDo(key, 'deriveKey'))
    .map(exchangeKeyOf)
  if (signingKeys.length === 0) throw malformed('it has no signing key that can be used')
  if (signingKeys.length > mostSigners) throw malformed('it has too many signing keys')
  if (exchangeKeys.length === 0) throw malformed('it has no exchange key that can be used')
  const signedBy = await signersAmong([...signingKeys, ...verifyKeys(known)], signatures)
  const missing = signingKeys.find((key) => !signedBy.includes(thumbprint(key)))
  if (missing !== undefined) {
    throw cryptoFault(
      'crypto.advertisement_unsigned',
      `the advertisement is not signed by its key ${thumbprint(missing)}`,
      {
        hint: 'somebody between here and the key server may have altered it: compare thumbprints at the server',
      },
    )
  }
  return { keys, signingKeys, exchangeKeys, signedBy }
}

/**
 * True when the advertisement is signed by a key with one of these thumbprints (any hash), be it
 * advertised or one of `known` that may verify.
 */
export function isSignedBy(
  advertisement: Advertisement,
  trusted: readonly string[],
  known: readonly AnyJwk[] = [],
): boolean {
  const signers = [...advertisement.signingKeys, ...verifyKeys(known)].filter((key) =>
    advertisement.signedBy.includes(thumbprint(key)),
  )
  return signers.some((key) => thumbprints(key).some((name) => trusted.includes(name)))
}

/** True for a key that lists the operation among its `key_ops` (RFC 7517 section 4.3), as tangd's do. */
export function mayDo(key: AnyJwk, operation: string): boolean {
  const operations = key.key_ops
  return Array.isArray(operations) && operations.includes(operation)
}

/**
 * Keys of other types (a tangd with an RSA or HMAC key in its directory shows them) are carried
 * along and never believed: they neither have to sign nor count when they do.
 */
function isOnKnownCurve(key: AnyJwk): boolean {
  return key.kty === 'EC' && isCurveName(key.crv)
}

function isSigningKey(key: AnyJwk): boolean {
  return isOnKnownCurve(key) && mayDo(key, 'verify')
}

/** The keys among those once trusted that may verify; an exchange key vouches for nothing. */
function verifyKeys(known: readonly AnyJwk[]): EcPublicJwk[] {
  return known.filter(isSigningKey).map(signingKey)
}

function signingKey(key: AnyJwk): EcPublicJwk {
  return read(() => parseEcPublicJwk(key, 'a signing key'))
}

function exchangeKeyOf(key: AnyJwk): EcPublicJwk {
  return read(() => parseEcPublicJwk(key, 'an exchange key'))
}

function readJws(text: string): JsonObject {
  return read(() => parseJsonObject(text, 'the advertisement', 1_000_000))
}

function payloadKeys(payload: unknown): AnyJwk[] {
  if (typeof payload !== 'string') throw malformed('it has no payload')
  const set = read(() =>
    parseJson(fromBase64url(payload).toString('utf8'), 'the payload', 1_000_000),
  )
  const keys = isObject(set) ? set.keys : undefined
  if (!Array.isArray(keys) || keys.length > 100) throw malformed('its payload is not a key set')
  return keys.map((key: unknown) => {
    if (!isObject(key) || typeof key.kty !== 'string') throw malformed('a key has no type')
    if ('d' in key || 'k' in key) throw malformed('it carries a private key')
    return { ...key, kty: key.kty }
  })
}

function signaturesOf(jws: JsonObject): FlattenedJWSInput[] {
  const { payload } = jws
  const list: unknown[] = Array.isArray(jws.signatures) ? jws.signatures : [jws]
  if (list.length > mostSignatures) throw malformed('it has too many signatures')
  return list.map((entry) => {
    if (!isObject(entry)) throw malformed('a signature is not an object')
    const { protected: head, signature } = entry
    if (typeof head !== 'string' || typeof signature !== 'string' || typeof payload !== 'string') {
      throw malformed('a signature lacks protected or signature')
    }
    return { payload, protected: head, signature }
  })
}

/** SHA-256 thumbprints of those keys that made one of the signatures. */
async function signersAmong(
  keys: readonly EcPublicJwk[],
  signatures: readonly FlattenedJWSInput[],
): Promise<string[]> {
  const byName = new Map(keys.map((key) => [thumbprint(key), key]))
  const signers: string[] = []
  for (const [name, key] of byName) if (await hasSigned(key, signatures)) signers.push(name)
  return signers
}

async function hasSigned(
  jwk: EcPublicJwk,
  signatures: readonly FlattenedJWSInput[],
): Promise<boolean> {
  const key = createPublicKey({ key: { ...bareJwk(jwk) }, format: 'jwk' })
  for (const signature of signatures) {
    const verified = flattenedVerify(signature, key, { algorithms: [signingAlgorithm(jwk)] })
    if (
      await verified.then(
        () => true,
        () => false,
      )
    )
      return true
  }
  return false
}

function read<T>(reader: () => T): T {
  try {
    return reader()
  } catch (error) {
    if (isFault(error, 'crypto.advertisement_malformed')) throw error
    throw malformed(isFault(error) ? error.message : 'it cannot be read')
  }
}

function malformed(reason: string): Error {
  return cryptoFault('crypto.advertisement_malformed', `not an advertisement: ${reason}`)
}
