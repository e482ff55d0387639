import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { canonicalJson, isObject, parseJsonObject, Secret } from '@holdfast/base'
import { type AnyJwk, encryptJwe, jweLimit, parseJwe, thumbprint } from '@holdfast/crypto'
import { compactDecrypt } from 'jose'
import { sealFault } from './faults.ts'
import { parseSealed } from './header.ts'
import { useOf } from './inspect.ts'
import { type OpenOptions, open } from './open.ts'
import { compactOf } from './passphrase.ts'
import { readPublicKey } from './person.ts'
import type { Pins } from './pin.ts'

// Recovery by a colleague: the technician at a site without network sends the sealed secret and
// a public key; the colleague beside the key servers opens it and sends the answer encrypted to that
// key. The request tells nothing that the disk's header does not, and nobody in between can read
// the answer. An answer names the request it belongs to.

export interface RecoveryRequest {
  readonly holdfast: 'recovery-request'
  readonly version: 1
  /** The sealed secret, compact JWE. */
  readonly sealed: string
  /** The technician's public key, P-256 or X25519 or RSA of at least 3072 bits. */
  readonly technician: AnyJwk
}

/**
 * Makes the request as one line of JSON; of a private key only the public half goes in.
 * @throws Fault seal.holder_key_weak, seal.sealed_malformed
 */
export function makeRecoveryRequest(sealed: string, technician: KeyObject): string {
  parseSealed(sealed)
  const publicKey = technician.type === 'public' ? technician : createPublicKey(technician)
  readPublicKey(publicKey.export({ type: 'spki', format: 'pem' }), 'the technician')
  const jwk = publicKey.export({ format: 'jwk' })
  const request: RecoveryRequest = {
    holdfast: 'recovery-request',
    version: 1,
    sealed,
    technician: { ...jwk, kty: jwk.kty ?? '' },
  }
  return canonicalJson(request)
}

/** @throws Fault seal.request_malformed */
export function parseRecoveryRequest(text: string): RecoveryRequest {
  const { holdfast, version, sealed, technician } = parseJsonObject(
    text.trim(),
    'the request',
    2 * jweLimit,
  )
  const known = holdfast === 'recovery-request' && version === 1
  if (!known || typeof sealed !== 'string' || !isObject(technician)) {
    throw sealFault('seal.request_malformed', 'this is not a recovery request', {
      hint: 'make one on the locked machine: holdfast vault export-request',
    })
  }
  readPublicKey(technician, 'the technician')
  return { holdfast, version, sealed, technician: { ...technician, kty: String(technician.kty) } }
}

/** A digest that both people can read to each other: what was asked, and for whom. */
export function requestDigest(request: RecoveryRequest): string {
  const identity = { sealed: request.sealed, technician: thumbprint(request.technician) }
  return createHash('sha256').update(canonicalJson(identity)).digest('base64url').slice(0, 22)
}

/**
 * Opens the request's secret and encrypts it to the technician alone; compact JWE. The TPM of the
 * machine that answers is not asked: what only that opens is that machine's own secret.
 * @throws Fault seal.use_foreign when the secret says that it is no way into a vault
 */
export async function answerRecoveryRequest(
  pins: Pins,
  request: RecoveryRequest,
  options: OpenOptions = {},
): Promise<string> {
  requireVault(request.sealed)
  using plaintext = await open(forOthers(pins), request.sealed, options)
  const key = readPublicKey(request.technician, 'the technician')
  const alg = key.asymmetricKeyType === 'rsa' ? 'RSA-OAEP-256' : 'ECDH-ES'
  const header = { alg, typ: 'holdfast-recovery-answer', request: requestDigest(request) }
  return await encryptJwe(header, key, plaintext)
}

/** A colleague is asked for a disk: nobody is to get anything else this way. */
function requireVault(sealed: string): void {
  const use = useOf(sealed)
  if (use === undefined || use.purpose === 'vault') return
  const what =
    use.purpose === 'coordinator' ? "a coordinator's data key" : "a proof of a holder's key"
  throw sealFault('seal.use_foreign', `the request shows ${what}, not a way into a vault`, {
    hint: 'somebody put it there: answer nothing, and find out where the request comes from',
  })
}

function forOthers(pins: Pins): Pins {
  const refuse = async (name: string): Promise<never> => {
    const text = `${name} opens for this machine only, not for a request from elsewhere`
    throw sealFault('seal.machine_bound', text, {
      hint: 'the request must be of a policy that key servers or people can open',
    })
  }
  return {
    names: pins.names,
    get: (name) => {
      const pin = pins.get(name)
      return pin.machineBound === true ? { ...pin, open: () => refuse(name) } : pin
    },
  }
}

/**
 * Reads an answer with the technician's private key.
 * @throws Fault seal.answer_malformed, seal.answer_foreign when it answers another request
 */
export async function readRecoveryAnswer(
  answer: string,
  request: RecoveryRequest,
  technician: KeyObject,
): Promise<Secret> {
  const own = createPublicKey(technician).export({ format: 'jwk' })
  if (thumbprint({ ...own, kty: own.kty ?? '' }) !== thumbprint(request.technician)) {
    throw sealFault(
      'seal.answer_foreign',
      'this private key is not the one the request was made for',
    )
  }
  let opened: Awaited<ReturnType<typeof compactDecrypt>>
  try {
    // jose passes over the bits that base64url leaves open at a part's end: one answer, one text.
    opened = await compactDecrypt(compactOf(parseJwe(answer)), technician, {
      keyManagementAlgorithms: ['RSA-OAEP-256', 'ECDH-ES'],
      contentEncryptionAlgorithms: ['A256GCM'],
    })
  } catch (cause) {
    throw sealFault(
      'seal.answer_malformed',
      'the answer cannot be opened with the technician key',
      {
        cause: (cause as Error).name,
        hint: 'was it made for this request and copied whole?',
      },
    )
  }
  const secret = Secret.take(opened.plaintext)
  if (opened.protectedHeader.request === requestDigest(request)) return secret
  secret[Symbol.dispose]()
  throw sealFault('seal.answer_foreign', 'the answer belongs to another request')
}
