import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
} from 'node:crypto'
import { join } from 'node:path'
import { canonicalJson, parseJson, readIfPresent, Secret, writeDurable } from '@holdfast/base'
import { certificateRequest, keyId, makeTunnelKey, tunnelPublicKey } from '@holdfast/link'
import { z } from 'zod'
import { agentFault } from './faults.ts'
import { type KeySeal, plainSeal } from './key-seal.ts'

// The keys that make a machine this node. They are made once, at the first start of a new machine,
// in one file; every other path reads them and fails when they are not there, because a new identity
// would silently own no share at any guardian. Nothing protects the file but its mode: who has the
// disk has the identity, and is stopped by the freeze list.

export interface NodeKeys {
  /** base64url SHA-256 of the identity's SubjectPublicKeyInfo. */
  readonly node: string
  /** P-256, signs; the TLS certificate is on it. */
  readonly identity: KeyObject
  /** P-256; things sealed for this node are encrypted for it. */
  readonly exchange: KeyObject
  /** X25519, for the tunnel. */
  readonly wireguard: KeyObject
}

const fileSchema = z.strictObject({
  v: z.literal(1),
  identity: z.string(),
  exchange: z.string(),
  wireguard: z.string(),
})

/** The file that holds the keys, below the node's directory. */
export function keysPath(directory: string): string {
  return join(directory, 'keys.json')
}

/** Where new keys stand until the first boot state has been written under them. */
export function newKeysPath(directory: string): string {
  return join(directory, 'keys-new.json')
}

/** Makes the keys of a new machine. Only `createNode` may call it. */
export function makeKeys(): NodeKeys {
  const p256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  return nodeKeys(p256(), p256(), makeTunnelKey())
}

/** Writes the keys as the seal says. */
export async function writeKeys(
  path: string,
  keys: NodeKeys,
  keeping: KeySeal = plainSeal,
): Promise<void> {
  const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString()
  const document = {
    v: 1,
    identity: pem(keys.identity),
    exchange: pem(keys.exchange),
    wireguard: pem(keys.wireguard),
  }
  using text = Secret.copy(`${canonicalJson(document)}\n`)
  using written = await keeping.wrap('keys.json', text)
  await writeDurable(path, written.reveal())
}

/**
 * The keys, or undefined when there is no file.
 * @throws Fault agent.identity_damaged, agent.keys_sealed_elsewhere
 */
export async function readKeys(
  path: string,
  keeping: KeySeal = plainSeal,
): Promise<NodeKeys | undefined> {
  const bytes = await readIfPresent(path, 65_536)
  if (bytes === undefined) return undefined
  using text = await keeping.unwrap('keys.json', bytes)
  try {
    const file = fileSchema.parse(parseJson(text.reveal().toString('utf8'), path))
    const [identity, exchange, wireguard] = [file.identity, file.exchange, file.wireguard].map(
      (pem) => createPrivateKey(pem),
    ) as [KeyObject, KeyObject, KeyObject] // three went in
    return nodeKeys(identity, exchange, wireguard)
  } catch {
    // The cause would quote key material.
    throw agentFault('agent.identity_damaged', `${path} cannot be read as this node's keys`, {
      hint: 'restore the file from a copy; without it the node must be removed and enrolled anew',
    })
  }
}

function nodeKeys(identity: KeyObject, exchange: KeyObject, wireguard: KeyObject): NodeKeys {
  return { node: keyId(identity), identity, exchange, wireguard }
}

/** A 32-byte key derived from the identity for one purpose (RFC 5869, SHA-256). */
export function derivedKey(keys: NodeKeys, purpose: string): Secret {
  using scalar = Secret.take(keys.identity.export({ type: 'pkcs8', format: 'der' }))
  return Secret.take(
    new Uint8Array(hkdfSync('sha256', scalar.reveal(), keys.node, `holdfast ${purpose} 1`, 32)),
  )
}

/** What others may know of the keys, as enrolment cards carry it. */
export async function publicKeys(keys: NodeKeys): Promise<{
  node: string
  identity: string
  exchange: string
  wireguard: string
  certificateRequest: string
}> {
  return {
    node: keys.node,
    identity: publicPem(keys.identity),
    exchange: publicPem(keys.exchange),
    wireguard: tunnelPublicKey(keys.wireguard),
    certificateRequest: await certificateRequest(keys.identity),
  }
}

/** A key's public half as PEM SubjectPublicKeyInfo. */
export function publicPem(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return publicKey.export({ type: 'spki', format: 'pem' }).toString()
}
