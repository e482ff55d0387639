import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { readIfPresent, writeDurable } from '@holdfast/base'
import { keyId, selfSigned } from '@holdfast/link'
import { coordinatorFault } from './faults.ts'

/**
 * The coordinator's long-lived identity, outside the sealed state: clients pin it before, during and
 * after a recovery. Instances of one cluster share it.
 */
export interface Identity {
  readonly key: KeyObject
  readonly publicKey: KeyObject
  /** base64url SHA-256 of the SubjectPublicKeyInfo: what clients pin. */
  readonly digest: string
  /** Self-signed TLS certificate, PEM. */
  readonly certificate: string
}

const file = 'identity.pem'
const keyLimit = 4096
/** The certificate's dates carry no meaning, the pin does; and a clock may say 1970. */
const validity = { from: new Date('1970-01-01T00:00:00Z'), until: new Date('2999-12-31T00:00:00Z') }

/** Reads the identity, or makes it when `fresh`. @throws Fault coordinator.identity_absent */
export async function loadIdentity(directory: string, fresh: boolean): Promise<Identity> {
  const path = join(directory, file)
  const stored = await readIfPresent(path, keyLimit)
  if (stored !== undefined) return await identityOf(createPrivateKey(stored))
  if (!fresh) {
    throw coordinatorFault(
      'coordinator.identity_absent',
      `${path} is missing, and this directory belongs to a cluster`,
      {
        hint: 'copy it from another instance or from a backup: holdfast coordinator restore',
      },
    )
  }
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  await writeDurable(path, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  return await identityOf(privateKey)
}

export async function identityOf(key: KeyObject): Promise<Identity> {
  const hosts = ['localhost', '127.0.0.1', '::1']
  const certificate = await selfSigned(key, 'Holdfast coordinator', validity, { hosts })
  return { key, publicKey: createPublicKey(key), digest: keyId(key), certificate }
}
