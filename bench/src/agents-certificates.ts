import { createHash, createPublicKey, type KeyObject, randomBytes, sign } from 'node:crypto'
import { type Authority, alwaysValid, certificateRequest, issue, keyId } from '@holdfast/link'

// Thousands of certificates of the fleet's own authority. The first one is issued as the coordinator
// issues it; what differs in the others (serial number, key, name, key identifier) is as long as
// in that one, so it is put in its place and the certificate is signed anew. Issuing takes 6 ms
// each, most of it in the library's ASN.1; this takes 0.1 ms.

/** Issues P-256 node certificates, PEM. */
export class CertificatePress {
  readonly #authority: Authority
  readonly #template: { body: Buffer; key: KeyObject }

  private constructor(authority: Authority, template: { body: Buffer; key: KeyObject }) {
    this.#authority = authority
    this.#template = template
  }

  static async create(authority: Authority, first: KeyObject): Promise<CertificatePress> {
    const request = await certificateRequest(first)
    const { certificate } = await issue(request, authority, alwaysValid, [])
    const der = Buffer.from(certificate.replace(/-----[^-]+-----|\s/g, ''), 'base64')
    const { start, end } = element(der, element(der, 0).content)
    return new CertificatePress(authority, { body: der.subarray(start, end), key: first })
  }

  /** The certificate of a private key. */
  issue(key: KeyObject): string {
    const body = Buffer.from(this.#template.body)
    const [before, after] = [partsOf(this.#template.key), partsOf(key)]
    for (const part of ['spki', 'name', 'host', 'identifier'] as const)
      replace(body, before[part], after[part])
    // Version, 5 bytes, comes first; then tag and length of the serial number; its first byte stays.
    const serial = element(body, element(body, 0).content + 5).content
    randomBytes(15).copy(body, serial + 1)
    const signature = sign('sha256', body, this.#authority.key)
    const bits = wrapped(0x03, Buffer.concat([Buffer.of(0), signature]))
    const der = wrapped(0x30, Buffer.concat([body, ecdsaWithSha256, bits]))
    const lines = der.toString('base64').match(/.{1,64}/g) ?? []
    return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
  }
}

/** AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758 3.2). */
const ecdsaWithSha256 = Buffer.from('300a06082a8648ce3d040302', 'hex')

/** What stands in a certificate because of its key. */
function partsOf(key: KeyObject) {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const name = keyId(key)
  return {
    spki,
    name: Buffer.from(name, 'latin1'),
    host: Buffer.from(Buffer.from(name, 'base64url').toString('hex', 0, 16), 'latin1'),
    /** RFC 5280 4.2.1.2 (1): of the bits of the key, the last 65 bytes for P-256. */
    identifier: createHash('sha1').update(spki.subarray(-65)).digest(),
  }
}

function replace(body: Buffer, before: Buffer, after: Buffer): void {
  const at = body.indexOf(before)
  if (at < 0 || before.length !== after.length)
    throw new Error('a certificate of the fleet has another form than this bench knows')
  after.copy(body, at)
}

/** A DER element: where it starts, where its content does, and where it ends. */
function element(der: Buffer, start: number): { start: number; content: number; end: number } {
  const first = der[start + 1] ?? 0
  const more = first < 0x80 ? 0 : first & 0x7f
  const length = more === 0 ? first : der.readUIntBE(start + 2, more)
  const content = start + 2 + more
  return { start, content, end: content + length }
}

function wrapped(tag: number, content: Buffer): Buffer {
  const { length } = content
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.of(tag, ...head), content])
}
