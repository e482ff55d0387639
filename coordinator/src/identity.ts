import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { readIfPresent, removeDurable, type Secret, writeDurable } from '@holdfast/base'
import { keyId, selfSigned } from '@holdfast/link'
import { coordinatorFault } from './faults.ts'

/**
 * The coordinator's long-lived identity, outside the sealed state: clients pin it before, during and
 * after a recovery. Instances of one cluster share it. A host that was restored from a backup has
 * only a temporary one until its holders have opened the sealed state, which carries the real one.
 */
export interface Identity {
  readonly key: KeyObject
  readonly publicKey: KeyObject
  /** base64url SHA-256 of the SubjectPublicKeyInfo: what clients pin. */
  readonly digest: string
  /** Self-signed TLS certificate, PEM. */
  readonly certificate: string
  /** The cluster's own public key, which signs its headers; another one while this is temporary. */
  readonly pinned: KeyObject
  readonly temporary: boolean
}

export const identityFile = 'identity.pem'
const pinnedFile = 'identity.pub'
const temporaryFile = 'identity-temporary.pem'
const keyLimit = 4096
/** The certificate's dates carry no meaning, the pin does; and a clock may say 1970. */
const validity = { from: new Date('1970-01-01T00:00:00Z'), until: new Date('2999-12-31T00:00:00Z') }

/** Reads the identity, or makes it when `fresh`. @throws Fault coordinator.identity_absent */
export async function loadIdentity(directory: string, fresh: boolean): Promise<Identity> {
  const path = join(directory, identityFile)
  const stored = await readIfPresent(path, keyLimit)
  if (stored !== undefined) return await identityOf(createPrivateKey(stored))
  const pinned = await readIfPresent(join(directory, pinnedFile), keyLimit)
  if (pinned !== undefined)
    return await identityOf(
      await storedKey(join(directory, temporaryFile)),
      createPublicKey(pinned),
    )
  if (!fresh) {
    throw coordinatorFault(
      'coordinator.identity_absent',
      `${path} is missing, and this directory belongs to a cluster`,
      {
        hint: 'if this was an interrupted join, run holdfast coordinator join again with a new token; otherwise copy the file from another instance, or restore a backup into an empty directory',
      },
    )
  }
  return await identityOf(await storedKey(path))
}

/** Pins the identity of a cluster whose private key is not here; part of restoring a backup. */
export async function pinIdentity(directory: string, publicKey: KeyObject): Promise<void> {
  const pem = publicKey.export({ type: 'spki', format: 'pem' })
  await writeDurable(join(directory, pinnedFile), pem)
}

/** Puts the cluster's own identity in the place of a temporary one. @throws Fault coordinator.backup_foreign */
export async function installIdentity(
  directory: string,
  pem: Secret,
  temporary: Identity,
): Promise<Identity> {
  const key = createPrivateKey(pem.reveal())
  if (keyId(key) !== keyId(temporary.pinned)) {
    throw coordinatorFault(
      'coordinator.backup_foreign',
      'the identity key in the sealed state is not the one that its header is signed by',
    )
  }
  await writeDurable(join(directory, identityFile), pem.reveal())
  await removeDurable(join(directory, temporaryFile))
  return await identityOf(key)
}

async function storedKey(path: string): Promise<KeyObject> {
  const stored = await readIfPresent(path, keyLimit)
  if (stored !== undefined) return createPrivateKey(stored)
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  await writeDurable(path, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  return privateKey
}

/** The identity of a private key; `pinned` when that is not the cluster's own. */
export async function identityOf(key: KeyObject, pinned?: KeyObject): Promise<Identity> {
  const hosts = ['localhost', '127.0.0.1', '::1']
  const certificate = await selfSigned(key, 'Holdfast coordinator', validity, { hosts })
  const publicKey = createPublicKey(key)
  const digest = keyId(key)
  return {
    key,
    publicKey,
    digest,
    certificate,
    pinned: pinned ?? publicKey,
    temporary: pinned !== undefined,
  }
}
