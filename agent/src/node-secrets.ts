import { createPrivateKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { join } from 'node:path'
import {
  ensureDirectory,
  listDirectory,
  parseJsonObject,
  readIfPresent,
  Secret,
  shredDurable,
  toBase64url,
  writeDurable,
} from '@holdfast/base'
import { isSigned, keyId, signBody } from '@holdfast/link'
import { type NodeKeys, publicPem } from './identity.ts'
import type { KeySeal } from './key-seal.ts'

// What a node makes for its services at first boot: a signing key, endorsed by its identity, and one
// token for each service, signed by that key. A token is a JWS (RFC 7515, ES256) that says which
// service of which node holds it; whoever knows the node's id can check the chain.

/** Where the signing key and its endorsement are, in the node's directory. */
const signingKeyName = 'signing-key.json'
const endorsementName = 'signing-key-endorsement.json'

export class SigningKey {
  readonly #directory: string
  readonly #keys: NodeKeys
  readonly #keeping: KeySeal

  /** `keeping` says how files with private keys are kept in the directory. */
  constructor(directory: string, keys: NodeKeys, keeping: KeySeal) {
    this.#directory = directory
    this.#keys = keys
    this.#keeping = keeping
  }

  /** The key, when it is there and the identity of this node has endorsed it. */
  async read(): Promise<KeyObject | undefined> {
    const bytes = await readIfPresent(join(this.#directory, signingKeyName), 8192)
    const endorsement = await readIfPresent(join(this.#directory, endorsementName), 8192)
    if (bytes === undefined || endorsement === undefined) return undefined
    try {
      using file = await this.#keeping.unwrap(signingKeyName, bytes)
      const { key: pem } = parseJsonObject(file.reveal().toString('utf8'), signingKeyName)
      const key = createPrivateKey(String(pem))
      const { signature } = parseJsonObject(endorsement.toString('utf8'), endorsementName)
      const body = this.#body(key)
      const good = isSigned(this.#keys.identity, 'signing-key', body, String(signature))
      return good ? key : undefined
    } catch {
      return undefined // it is made anew
    }
  }

  async make(): Promise<void> {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const exported = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    using file = Secret.copy(JSON.stringify({ v: 1, key: exported }))
    using kept = await this.#keeping.wrap(signingKeyName, file)
    const body = this.#body(privateKey)
    const signature = signBody(this.#keys.identity, 'signing-key', body)
    // Between the two writes the old endorsement does not fit the new key, which is then made again.
    await writeDurable(join(this.#directory, signingKeyName), kept.reveal())
    await writeDurable(
      join(this.#directory, endorsementName),
      `${JSON.stringify({ ...body, signature })}\n`,
    )
  }

  #body(key: KeyObject) {
    return { node: this.#keys.node, key: publicPem(key) }
  }
}

/** Tokens of services, in the vault. */
export class ServiceTokens {
  readonly #node: string
  readonly #now: () => number

  constructor(node: string, now: () => number) {
    this.#node = node
    this.#now = now
  }

  /** Where a service's token is, below the mounted vault. */
  path(vault: string, service: string): string {
    return join(folder(vault), service)
  }

  /** Whether exactly these services have tokens that the key has signed. */
  async stand(vault: string, services: readonly string[], key: KeyObject): Promise<boolean> {
    const present = await listDirectory(folder(vault))
    if (present.join('\n') !== [...services].sort().join('\n')) return false
    return (await this.lacking(vault, services, key)).length === 0
  }

  /** Which of these services have no token that the key has signed. */
  async lacking(vault: string, services: readonly string[], key: KeyObject): Promise<string[]> {
    const good = await Promise.all(services.map((service) => this.#isGood(vault, service, key)))
    return services.filter((_, index) => good[index] !== true)
  }

  /** Makes those that are missing and destroys those of services that are no more. */
  async make(vault: string, services: readonly string[], key: KeyObject, renew: boolean) {
    await ensureDirectory(folder(vault))
    for (const name of await listDirectory(folder(vault)))
      if (!services.includes(name)) await shredDurable(join(folder(vault), name))
    for (const service of services) {
      if (!renew && (await this.#isGood(vault, service, key))) continue
      using token = Secret.copy(this.#token(service, key))
      await writeDurable(this.path(vault, service), token.reveal())
    }
  }

  #token(service: string, key: KeyObject): string {
    const part = (value: object) => toBase64url(Buffer.from(JSON.stringify(value)))
    const header = part({ alg: 'ES256', typ: 'JWT', kid: keyId(key) })
    const issued = Math.floor(this.#now() / 1000)
    const body = part({ iss: this.#node, sub: service, iat: issued })
    const text = `${header}.${body}`
    const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
    return `${text}.${toBase64url(signature)}`
  }

  async #isGood(vault: string, service: string, key: KeyObject): Promise<boolean> {
    // What cannot be read nobody can be given: making it anew says why.
    const bytes = await readIfPresent(this.path(vault, service), 8192).catch(() => undefined)
    if (bytes === undefined) return false
    using token = Secret.take(bytes)
    return isTokenOf(token.reveal().toString('utf8'), this.#node, service, key)
  }
}

/** Whether a token is this service's of this node, signed by this key. Never throws. */
export function isTokenOf(token: string, node: string, service: string, key: KeyObject): boolean {
  try {
    const [header = '', body = '', signature = ''] = token.split('.')
    const signed = { key: publicPem(key), dsaEncoding: 'ieee-p1363' } as const
    const text = Buffer.from(`${header}.${body}`)
    if (!verify('sha256', text, signed, Buffer.from(signature, 'base64url'))) return false
    const claims = parseJsonObject(Buffer.from(body, 'base64url').toString('utf8'), 'a token')
    return claims.iss === node && claims.sub === service
  } catch {
    return false
  }
}

const folder = (vault: string) => join(vault, 'holdfast', 'tokens')
