import { createDecipheriv, createHash, type KeyObject } from 'node:crypto'
import { fromBase64url, isFault, type JsonObject, parseJsonObject, Secret } from '@holdfast/base'
import { CompactEncrypt, type CompactJWEHeaderParameters } from 'jose'
import { cryptoFault } from './faults.ts'

// Compact JWE (RFC 7516 section 7.1) with A256GCM content encryption. Plaintext leaves this file
// only after its tag has been verified. jose encrypts; opening is here because jose cannot take
// the derived shared secret that a McCallum-Relyea exchange ends with.

/** A parsed compact JWE. `protected` is the literal text: it is the additional authenticated data. */
export interface Jwe {
  readonly header: JsonObject
  readonly protected: string
  readonly encryptedKey: Buffer
  readonly iv: Buffer
  readonly ciphertext: Buffer
  readonly tag: Buffer
}

/** The five parts as the flattened JSON that LUKS2 tokens hold (RFC 7516 section 7.2.2). */
export interface FlattenedJwe {
  protected: string
  encrypted_key?: string
  iv: string
  ciphertext: string
  tag: string
}

/** The most a sealed secret may measure, in characters. */
export const jweLimit = 4 * 1024 * 1024

/** Parses a compact JWE. @throws Fault crypto.jwe_malformed, crypto.jwe_too_large, crypto.jwe_unsupported */
export function parseJwe(text: string): Jwe {
  if (text.length > jweLimit) {
    throw cryptoFault(
      'crypto.jwe_too_large',
      `a sealed secret is longer than ${jweLimit} characters`,
    )
  }
  const parts = text.trim().split('.')
  if (parts.length !== 5) throw malformed('it does not have five parts')
  const [head = '', key = '', iv = '', ciphertext = '', tag = ''] = parts
  const header = decode(() =>
    parseJsonObject(fromBase64url(head).toString('utf8'), 'the protected header', jweLimit),
  )
  if (header.enc !== 'A256GCM') {
    throw cryptoFault('crypto.jwe_unsupported', 'the sealed secret is not encrypted with A256GCM')
  }
  if ('crit' in header || 'zip' in header) {
    throw cryptoFault('crypto.jwe_unsupported', 'the sealed secret uses crit or zip')
  }
  const jwe = {
    header,
    protected: head,
    encryptedKey: decode(() => fromBase64url(key)),
    iv: decode(() => fromBase64url(iv)),
    ciphertext: decode(() => fromBase64url(ciphertext)),
    tag: decode(() => fromBase64url(tag)),
  }
  const direct = header.alg === 'dir' || header.alg === 'ECDH-ES'
  if (direct && jwe.encryptedKey.length > 0) {
    throw malformed('it carries an encrypted key that its algorithm does not have') // RFC 7516 5.2
  }
  if (jwe.iv.length !== 12 || jwe.tag.length !== 16)
    throw malformed('its nonce or tag has a wrong length')
  return jwe
}

function decode<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw malformed(isFault(error) ? error.message : 'a part cannot be read')
  }
}

function malformed(reason: string): Error {
  return cryptoFault('crypto.jwe_malformed', `not a sealed secret: ${reason}`)
}

/** A public key or a 32-byte content key to encrypt for. */
export type EncryptionKey = KeyObject | Secret

/**
 * Encrypts to a compact JWE. `header` names the key management algorithm (`dir`, `ECDH-ES`,
 * `RSA-OAEP-256` ...) and carries the members to authenticate.
 * @throws Fault crypto.jwe_unsupported when the key cannot be encrypted for, such as an X25519
 *   point of low order
 */
export async function encryptJwe(
  header: JsonObject & { alg: string },
  key: EncryptionKey,
  plaintext: Secret,
): Promise<string> {
  const head = { ...header, enc: 'A256GCM' } satisfies CompactJWEHeaderParameters
  const bytes = plaintext.reveal()
  const encryptionKey = key instanceof Secret ? key.reveal() : key
  try {
    return await new CompactEncrypt(bytes).setProtectedHeader(head).encrypt(encryptionKey)
  } catch (cause) {
    throw cryptoFault('crypto.jwe_unsupported', `cannot encrypt with ${header.alg} for this key`, {
      cause,
    })
  }
}

/**
 * Decrypts with the 32-byte content encryption key.
 * @throws Fault crypto.jwe_wrong_key when the tag does not verify: wrong key or altered data
 */
export function decryptJwe(jwe: Jwe, key: Secret): Secret {
  if (key.length !== 32)
    throw cryptoFault('crypto.jwe_wrong_key', 'the content key is not 32 bytes')
  const decipher = createDecipheriv('aes-256-gcm', key.reveal(), jwe.iv)
  decipher.setAAD(Buffer.from(jwe.protected, 'ascii')).setAuthTag(jwe.tag)
  const plaintext = decipher.update(jwe.ciphertext)
  try {
    decipher.final()
  } catch {
    plaintext.fill(0)
    throw cryptoFault(
      'crypto.jwe_wrong_key',
      'the sealed secret does not open: wrong key or altered data',
    )
  }
  return Secret.take(plaintext)
}

/**
 * The content key of an ECDH-ES JWE from the shared secret Z (RFC 7518 section 4.6.2, one round of
 * SHA-256). `Z` is the x coordinate at full field width.
 */
export function deriveContentKey(z: Secret, header: JsonObject): Secret {
  const prefix = (text: unknown): Buffer => {
    const bytes = typeof text === 'string' ? decode(() => fromBase64url(text)) : Buffer.alloc(0)
    return Buffer.concat([uint32(bytes.length), bytes])
  }
  const algorithm = Buffer.from('A256GCM', 'ascii')
  const digest = createHash('sha256')
    .update(uint32(1))
    .update(z.reveal())
    .update(uint32(algorithm.length))
    .update(algorithm)
    .update(prefix(header.apu))
    .update(prefix(header.apv))
    .update(uint32(256))
    .digest()
  return Secret.take(digest)
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** Compact to flattened form. */
export function flattenJwe(compact: string): FlattenedJwe {
  const [head = '', key = '', iv = '', ciphertext = '', tag = ''] = compact.split('.')
  return { ciphertext, encrypted_key: key, iv, protected: head, tag }
}

/** Flattened to compact form; a missing `encrypted_key` is an empty one. */
export function compactJwe(jwe: FlattenedJwe): string {
  return [jwe.protected, jwe.encrypted_key ?? '', jwe.iv, jwe.ciphertext, jwe.tag].join('.')
}
