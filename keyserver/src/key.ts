import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import {
  canonicalJson,
  isFault,
  isObject,
  type JsonObject,
  parseJson,
  writeDurable,
} from '@holdfast/base'
import {
  bareJwk,
  type CurveName,
  type EcPrivateJwk,
  type EcPublicJwk,
  generateEcKey,
  parseEcPublicJwk,
  signingAlgorithm,
  thumbprint,
  thumbprints,
} from '@holdfast/crypto'
import { keyserverFault } from './faults.ts'

// A key file as tangd 11 and its tools write it: one private JWK, `<thumbprint>.jwk`, mode 0440. A
// leading dot means rotated: the key still answers and is no longer advertised.

export type KeyUse = 'signing' | 'exchange'

/** One usable key of the directory. */
export interface StoredKey {
  /** Path below the directory, for example `abc.jwk`, `.abc.jwk` or `p/web-17/abc.jwk`. */
  readonly file: string
  /** The name of the prefix it belongs to; empty for the main set. */
  readonly prefix: string
  readonly hidden: boolean
  readonly use: KeyUse
  /** Thumbprint with SHA-256. */
  readonly kid: string
  /** Thumbprints with all five hashes. */
  readonly thumbprints: readonly string[]
  readonly crv: CurveName
  /** Absent for a public-only file, which is answered 403 and never advertised. */
  readonly privateKey: EcPrivateJwk | undefined
  readonly publicKey: EcPublicJwk
  /** When the file's content was written, milliseconds since 1970. */
  readonly created: number
  /** When the file last changed in any way: for a hidden key, when it was hidden at the latest. */
  readonly changed: number
}

/** What a key file's JWK says, without its place in the directory. */
export type KeyMaterial = Pick<
  StoredKey,
  'use' | 'kid' | 'thumbprints' | 'crv' | 'privateKey' | 'publicKey'
>

/**
 * Reads the text of a key file.
 * @throws Fault keyserver.key_malformed for anything that is not a signing key (`alg` ES256, ES384
 *   or ES512, may sign) or an exchange key (`alg` ECMR, may deriveKey) on one of the three curves
 */
export function parseKey(text: string, file: string): KeyMaterial {
  const jwk = readObject(text, file)
  const publicKey = readPublic(jwk, file)
  const operations = Array.isArray(jwk.key_ops) ? jwk.key_ops : []
  const use = useOf(jwk, operations, publicKey, file)
  const { d } = jwk
  if (d !== undefined && typeof d !== 'string') throw malformed(file, 'member d is not text')
  return {
    use,
    kid: thumbprint(publicKey),
    thumbprints: thumbprints(publicKey),
    crv: publicKey.crv,
    publicKey: bareJwk(publicKey),
    privateKey: d === undefined ? undefined : { ...bareJwk(publicKey), d },
  }
}

function readObject(text: string, file: string): JsonObject {
  let value: unknown
  try {
    value = parseJson(text, file)
  } catch {
    throw malformed(file, 'it is not JSON')
  }
  if (!isObject(value)) throw malformed(file, 'it is not a JSON object')
  return value
}

function readPublic(jwk: JsonObject, file: string): EcPublicJwk {
  try {
    return parseEcPublicJwk(jwk, file)
  } catch (error) {
    throw malformed(file, isFault(error) ? error.message : 'its public key cannot be read')
  }
}

function useOf(
  jwk: JsonObject,
  operations: readonly unknown[],
  publicKey: EcPublicJwk,
  file: string,
): KeyUse {
  const algorithm = jwk.alg
  const isPublic = jwk.d === undefined
  if (operations.includes('deriveKey')) {
    if (algorithm === 'ECMR') return 'exchange'
    throw malformed(file, 'it may derive keys but its algorithm is not ECMR')
  }
  if (operations.includes(isPublic ? 'verify' : 'sign')) {
    if (algorithm === undefined || algorithm === signingAlgorithm(publicKey)) return 'signing'
    throw malformed(file, `its algorithm does not fit ${publicKey.crv}`)
  }
  throw malformed(file, 'it is neither a signing nor an exchange key')
}

function malformed(file: string, reason: string): Error {
  return keyserverFault('keyserver.key_malformed', `cannot use the key file ${file}: ${reason}`)
}

/** The private JWK as tangd's tools write it: `alg` and `key_ops` say what the key is for. */
export function keyFileText(key: EcPrivateJwk, use: KeyUse): string {
  return `${canonicalJson(
    use === 'signing'
      ? { ...key, alg: signingAlgorithm(key), key_ops: ['sign', 'verify'] }
      : { ...key, alg: 'ECMR', key_ops: ['deriveKey'] },
  )}\n`
}

/** The public JWK as advertised; a signing key may only verify. */
export function advertisedJwk(key: StoredKey): JsonObject {
  return key.use === 'signing'
    ? { ...key.publicKey, alg: signingAlgorithm(key.publicKey), key_ops: ['verify'] }
    : { ...key.publicKey, alg: 'ECMR', key_ops: ['deriveKey'] }
}

/** A key made but not yet written. */
export interface NewKey {
  readonly use: KeyUse
  readonly kid: string
  readonly jwk: EcPrivateJwk
}

/** A new key in memory; `writeKey` makes it durable. */
export function makeKey(use: KeyUse, crv: CurveName): NewKey {
  const jwk = generateEcKey(crv)
  return { use, kid: thumbprint(jwk), jwk }
}

/** Writes a new key durably as `<kid>.jwk`, mode 0440 as `tangd-keygen` does. Returns the name. */
export async function writeKey(folder: string, key: NewKey): Promise<string> {
  const name = `${key.kid}.jwk`
  await writeDurable(join(folder, name), keyFileText(key.jwk, key.use), { mode: 0o440 })
  return name
}

/** Makes a 0440 key file, never what a link leads to, writable by its owner, to be overwritten. */
export async function makeShreddable(path: string): Promise<void> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined)
  await file?.chmod(0o600).catch(() => undefined)
  await file?.close()
}
