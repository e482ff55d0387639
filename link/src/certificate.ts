import { createPublicKey, type KeyObject, randomBytes, webcrypto } from 'node:crypto'
import { messageOf } from '@holdfast/base'
import type { Extension, Pkcs10CertificateRequest, X509Certificate } from '@peculiar/x509'
import { linkFault } from './faults.ts'
import { keyId } from './key-id.ts'

// Certificates of the fleet. All keys are P-256: TLS libraries, browsers and HSMs have it. Every
// certificate passes `openssl verify -x509_strict`: key identifiers, critical constraints, key usage.

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

/** Loaded at first use: it takes 160 ms, and most processes never issue anything. */
async function library() {
  await import('reflect-metadata') // the next one throws without it
  return await import('@peculiar/x509')
}

type Library = Awaited<ReturnType<typeof library>>

async function cryptoKeys(key: KeyObject): Promise<webcrypto.CryptoKeyPair> {
  const { subtle } = webcrypto
  const pkcs8 = key.export({ type: 'pkcs8', format: 'der' })
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  try {
    return {
      privateKey: await subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
      publicKey: await subtle.importKey('spki', spki, algorithm, true, ['verify']),
    }
  } finally {
    pkcs8.fill(0)
  }
}

/** 127 random bits with the highest set: positive and never shortened (RFC 5280 4.1.2.2). */
function serial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}

export interface Validity {
  from: Date
  until: Date
}

/**
 * The dates of certificates whose end is decided by a record and not by a clock: a node without a
 * battery starts in 1970 and must still know its peers. RFC 5280 4.1.2.5 has 9999-12-31 for this.
 */
export const alwaysValid: Validity = {
  from: new Date('1970-01-01T00:00:00Z'),
  until: new Date('9999-12-31T23:59:59Z'),
}

/** A self-signed certificate: the coordinator's TLS identity, or (with `authority`) the fleet's CA. */
export async function selfSigned(
  key: KeyObject,
  name: string,
  validity: Validity,
  use: { authority?: boolean; hosts?: readonly string[] } = {},
): Promise<string> {
  const x509 = await library()
  const keys = await cryptoKeys(key)
  const { authority = false, hosts = [] } = use
  const flags = x509.KeyUsageFlags
  const extensions: Extension[] = [
    new x509.BasicConstraintsExtension(authority, authority ? 0 : undefined, true),
    new x509.KeyUsagesExtension(
      authority ? flags.keyCertSign | flags.cRLSign : flags.digitalSignature,
      true,
    ),
    await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
    await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
  ]
  if (!authority) extensions.push(purposes(x509))
  if (hosts.length > 0) extensions.push(names(x509, hosts))
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serial(),
      name: `CN=${name}`,
      notBefore: validity.from,
      notAfter: validity.until,
      signingAlgorithm: algorithm,
      keys,
      extensions,
    },
    webcrypto,
  )
  return certificate.toString('pem')
}

/** A PKCS#10 request for a node's client certificate, PEM. */
export async function certificateRequest(key: KeyObject): Promise<string> {
  const x509 = await library()
  const request = await x509.Pkcs10CertificateRequestGenerator.create(
    { name: `CN=${keyId(key)}`, keys: await cryptoKeys(key), signingAlgorithm: algorithm },
    webcrypto,
  )
  return request.toString('pem')
}

/** The key that signs certificates, and its own certificate, PEM. */
export interface Authority {
  key: KeyObject
  certificate: string
}

/**
 * Issues a node's certificate, for client and server use between nodes. The name is derived from
 * the key, whatever the request says.
 * @throws Fault link.certificate_invalid when the request does not prove its key
 */
export async function issue(
  request: string,
  authority: Authority,
  validity: Validity,
  hosts: readonly string[],
): Promise<{ certificate: string; node: string }> {
  const x509 = await library()
  const publicKey = (await verified(x509, request)).publicKey
  const key = createPublicKey({ key: Buffer.from(publicKey.rawData), format: 'der', type: 'spki' })
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw invalid('the key is not on P-256')
  const node = keyId(key)
  const issuer = new x509.X509Certificate(authority.certificate)
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: serial(),
      subject: `CN=${node}`,
      issuer: issuer.subject,
      notBefore: validity.from,
      notAfter: validity.until,
      signingAlgorithm: algorithm,
      signingKey: (await cryptoKeys(authority.key)).privateKey,
      publicKey,
      extensions: await nodeExtensions(x509, publicKey, issuer, [dnsName(node), ...hosts]),
    },
    webcrypto,
  )
  return { certificate: certificate.toString('pem'), node }
}

async function nodeExtensions(
  x509: Library,
  publicKey: X509Certificate['publicKey'],
  issuer: X509Certificate,
  hosts: readonly string[],
): Promise<Extension[]> {
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    purposes(x509),
    names(x509, hosts),
    await x509.SubjectKeyIdentifierExtension.create(publicKey, false, webcrypto),
    await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey, false, webcrypto),
  ]
}

function purposes(x509: Library): Extension {
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage
  return new x509.ExtendedKeyUsageExtension([serverAuth, clientAuth])
}

function names(x509: Library, hosts: readonly string[]): Extension {
  return new x509.SubjectAlternativeNameExtension(
    hosts.map((host) => ({ type: /^[\d.]+$|:/.test(host) ? 'ip' : 'dns', value: host })),
  )
}

/** A node id has characters that a host name must not have; the certificate needs some name. */
function dnsName(node: string): string {
  return `${Buffer.from(node, 'base64url').subarray(0, 16).toString('hex')}.node.holdfast.internal`
}

async function verified(x509: Library, request: string): Promise<Pkcs10CertificateRequest> {
  let parsed: Pkcs10CertificateRequest
  try {
    parsed = new x509.Pkcs10CertificateRequest(request)
    if (await parsed.verify(webcrypto)) return parsed
  } catch (error) {
    throw invalid(messageOf(error))
  }
  throw invalid('its signature does not verify')
}

function invalid(reason: string): Error {
  return linkFault('link.certificate_invalid', `the certificate request cannot be used: ${reason}`)
}
