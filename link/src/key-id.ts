import { createHash, createPublicKey, type KeyObject } from 'node:crypto'

/** base64url SHA-256 of the SubjectPublicKeyInfo: a node's id, and what clients pin. */
export function keyId(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url')
}
