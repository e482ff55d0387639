import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { isFault, isObject, type JsonObject, messageOf, Secret } from '@holdfast/base'
import { type AnyJwk, decryptJwe, encryptJwe, type Jwe, thumbprint } from '@holdfast/crypto'
import { compactDecrypt } from 'jose'
import { sealFault } from './faults.ts'
import { holdfastMember, malformed, pinHeader, printable, readUse, stringMember } from './header.ts'
import { compactOf } from './passphrase.ts'
import type { Pin, SealedUse } from './pin.ts'

// The `person` pin: a share for a named holder's key. An RSA holder's wrapped key is exactly what
// `openssl pkeyutl -decrypt -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256` (or an HSM)
// takes; the 32 bytes that come out open this one share and nothing else, and are what the holder
// hands in. So a holder needs no software of ours and never has to show a private key.

/** What a holder is asked for. Everything here is public. */
export interface HolderRequest {
  /** The holder's name, as in the policy. */
  name: string
  /** Thumbprint (RFC 7638, SHA-256) of the holder's public key. */
  kid: string
  alg: string
  /** The wrapped content key: for RSA what openssl or an HSM decrypts. Empty for ECDH-ES. */
  wrapped: Buffer
}

/** A holder's answer: the private key itself, or the content key they unwrapped elsewhere. */
export type HolderAnswer = { privateKey: KeyObject } | { contentKey: Secret }

/** Finds a holder's answer; undefined when that holder is not here. */
export interface Holders {
  answer(request: HolderRequest, signal: AbortSignal): Promise<HolderAnswer | undefined>
}

/** Bits. Above the second OpenSSL refuses to compute. */
const smallestRsa = 3072
const largestRsa = 16_384

/** `{"name":"alice","key":<public JWK or PEM>}` */
export function personPin(holders?: Holders): Pin {
  return {
    name: 'person',
    local: true,
    interactive: true,
    label: (config) => String(config.name ?? 'person'),
    seal: async (plaintext, config, options) => {
      const { name, key, jwk } = parseConfig(config)
      const header = {
        alg: algorithmOf(key),
        clevis: { person: { jwk, name }, pin: 'person' },
        kid: thumbprint(jwk),
        ...holdfastMember(options),
      }
      return await encryptJwe(header, key, plaintext)
    },
    open: async (jwe, signal) => {
      const request = holderRequest(jwe)
      const answer = await holders?.answer(request, signal)
      if (answer === undefined) {
        throw sealFault('seal.holder_absent', `holder ${request.name} has not answered`, {
          hint: `ask ${request.name} for the key with thumbprint ${request.kid}, or for an unwrapped share`,
        })
      }
      return await openWith(jwe, answer, request.name)
    },
    inspect: (jwe) => {
      const { name, kid, alg } = holderRequest(jwe)
      return { label: printable(name), kid, details: { alg } }
    },
    policyOf: (jwe) => {
      const own = pinHeader(jwe, 'person')
      return { kind: 'pin', pin: 'person', config: { name: own.name, key: own.jwk } }
    },
  }
}

/** What must be asked of the holder to open this share. @throws Fault seal.sealed_malformed */
export function holderRequest(jwe: Jwe): HolderRequest {
  const name = stringMember(pinHeader(jwe, 'person'), 'name', 'the person header')
  const kid = stringMember(jwe.header, 'kid', 'the header')
  return {
    name,
    kid,
    alg: stringMember(jwe.header, 'alg', 'the header'),
    wrapped: jwe.encryptedKey,
  }
}

/**
 * Checks that what a holder unwrapped is of a share of this very secret, which is for this use: a
 * header is authenticated by the content key, so the key of another share opens nothing here.
 * @throws Fault seal.use_foreign, seal.share_wrong
 */
export function checkContentKey(share: Jwe, contentKey: Secret, expected: SealedUse): void {
  const { name } = holderRequest(share)
  const use = readUse(share)
  if (use?.purpose !== expected.purpose || use.of !== expected.of) {
    const stated = use === undefined ? 'of nothing that is named' : `of ${use.purpose} ${use.of}`
    const text = `what ${name} is asked for is a share ${stated}, not of ${expected.purpose} ${expected.of}`
    throw sealFault('seal.use_foreign', text, {
      hint: 'somebody shows one thing in the place of another: answer nothing, and find out who asks',
    })
  }
  try {
    decryptJwe(share, contentKey)[Symbol.dispose]()
  } catch (cause) {
    if (!isFault(cause)) throw cause
    throw sealFault('seal.share_wrong', `what was unwrapped is not of this share of ${name}`, {
      cause,
      hint: 'unwrap the share of this very request; if it was, what is asked for is not what it says',
    })
  }
}

async function openWith(jwe: Jwe, answer: HolderAnswer, name: string): Promise<Secret> {
  try {
    if ('contentKey' in answer) {
      using key = answer.contentKey
      return decryptJwe(jwe, key)
    }
    const { plaintext } = await compactDecrypt(compactOf(jwe), answer.privateKey, {
      keyManagementAlgorithms: ['RSA-OAEP-256', 'ECDH-ES'],
    })
    return Secret.take(plaintext)
  } catch (cause) {
    throw sealFault('seal.share_wrong', `what holder ${name} gave does not open their share`, {
      cause: messageOf(cause),
      hint: 'is it the key whose thumbprint the request names, and this share?',
    })
  }
}

function parseConfig(config: JsonObject): { name: string; key: KeyObject; jwk: AnyJwk } {
  const { name, key, ...rest } = config
  const [extra] = Object.keys(rest)
  if (extra !== undefined) throw invalid(`person does not know the member "${extra}"`)
  if (typeof name !== 'string' || !/^[\p{L}\p{N}][\p{L}\p{N} .@_-]{0,63}$/u.test(name)) {
    throw invalid('person needs "name", a holder\'s name of at most 64 letters')
  }
  const publicKey = readPublicKey(key, name)
  const jwk = publicKey.export({ format: 'jwk' })
  if (jwk.kty === undefined) throw malformed('the public key has no type')
  return { name, key: publicKey, jwk: { ...jwk, kty: jwk.kty } }
}

/**
 * A holder's public key from PEM (SubjectPublicKeyInfo) or a JWK.
 * @throws Fault seal.policy_invalid, seal.holder_key_weak
 */
export function readPublicKey(key: unknown, name: string): KeyObject {
  let publicKey: KeyObject
  try {
    if (typeof key === 'string') {
      if (key.includes('PRIVATE KEY')) throw invalid(`"key" of ${name} is a private key`)
      publicKey = createPublicKey(key)
    } else if (isObject(key) && !('d' in key)) {
      publicKey = createPublicKey({ key: key as JsonWebKey, format: 'jwk' }) // OpenSSL checks it
    } else {
      throw invalid(`"key" of ${name} must be a public key: PEM text or a JWK`)
    }
  } catch (cause) {
    if (isFault(cause)) throw cause
    throw sealFault('seal.policy_invalid', `the public key of ${name} cannot be read`, {
      cause,
      hint: `make one with: openssl pkey -in ${name}.key -pubout -out ${name}.pub`,
    })
  }
  algorithmOf(publicKey, name)
  return publicKey
}

/** The key management algorithm for a holder's key. @throws Fault seal.holder_key_weak */
function algorithmOf(key: KeyObject, name = 'the holder'): string {
  const details = key.asymmetricKeyDetails ?? {}
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return rsaAlgorithm(name, details.modulusLength ?? 0, details.publicExponent ?? 0n)
    case 'x25519':
      return 'ECDH-ES'
    case 'ec':
      if (details.namedCurve === 'prime256v1') return 'ECDH-ES'
      throw weak(name, `the curve ${details.namedCurve}`)
    default:
      throw weak(name, `a key of type ${key.asymmetricKeyType}`)
  }
}

function rsaAlgorithm(name: string, bits: number, exponent: bigint): string {
  if (bits < smallestRsa || bits > largestRsa) throw weak(name, `RSA of ${bits} bits`)
  // With an exponent of 1 the ciphertext is the plaintext; FIPS 186-5 A.1.1 asks for this bound.
  if (exponent < 65_537n) throw weak(name, `RSA with the exponent ${exponent}`)
  return 'RSA-OAEP-256'
}

function weak(name: string, what: string): Error {
  return sealFault('seal.holder_key_weak', `the key of ${name} is ${what}`, {
    hint: `use RSA of at least ${smallestRsa} bits, P-256 or X25519: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`,
  })
}

function invalid(reason: string): Error {
  return sealFault('seal.policy_invalid', `the policy is not valid: ${reason}`)
}
