import 'reflect-metadata' // @peculiar/x509 needs it before its own import
import { createHash, createPublicKey, type KeyObject, randomBytes, webcrypto } from 'node:crypto'
import { messageOf } from '@holdfast/base'
import * as x509 from '@peculiar/x509'
import { linkFault } from './faults.ts'

// Certificates of the fleet. All keys are P-256: TLS libraries, browsers and HSMs have it.

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const provider = webcrypto as unknown as Crypto // Node's own class lacks a name in the DOM's type

/** base64url SHA-256 of the SubjectPublicKeyInfo: a node's id, and what clients pin. */
export function keyId(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url')
}

async function cryptoKeys(key: KeyObject): Promise<CryptoKeyPair> {
  const privateKey = await provider.subtle.importKey(
    'pkcs8',
    key.export({ type: 'pkcs8', format: 'der' }),
    algorithm,
    true,
    ['sign'],
  )
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  return {
    privateKey,
    publicKey: await provider.subtle.importKey('spki', spki, algorithm, true, ['verify']),
  }
}

function serial(): string {
  const bytes = randomBytes(16)
  bytes[0] = (bytes[0] ?? 0) & 0x7f
  return bytes.toString('hex')
}

export interface Validity {
  from: Date
  until: Date
}

/** A self-signed certificate: the coordinator's TLS identity, or (with `authority`) the fleet's CA. */
export async function selfSigned(
  key: KeyObject,
  name: string,
  validity: Validity,
  use: { authority?: boolean; hosts?: readonly string[] } = {},
): Promise<string> {
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(
      use.authority === true,
      use.authority === true ? 0 : undefined,
      true,
    ),
    new x509.KeyUsagesExtension(
      use.authority === true
        ? x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign
        : x509.KeyUsageFlags.digitalSignature,
      true,
    ),
  ]
  if (use.hosts !== undefined)
    extensions.push(new x509.SubjectAlternativeNameExtension(use.hosts.map(hostName)))
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serial(),
      name: `CN=${name}`,
      notBefore: validity.from,
      notAfter: validity.until,
      signingAlgorithm: algorithm,
      keys: await cryptoKeys(key),
      extensions,
    },
    provider,
  )
  return certificate.toString('pem')
}

function hostName(host: string): { type: 'ip' | 'dns'; value: string } {
  return { type: /^[\d.]+$|:/.test(host) ? 'ip' : 'dns', value: host }
}

/** A PKCS#10 request for a node's client certificate, PEM. */
export async function certificateRequest(key: KeyObject): Promise<string> {
  const request = await x509.Pkcs10CertificateRequestGenerator.create(
    { name: `CN=${keyId(key)}`, keys: await cryptoKeys(key), signingAlgorithm: algorithm },
    provider,
  )
  return request.toString('pem')
}

/**
 * Issues a node's certificate, for client and server use between nodes. The name is derived from
 * the key, whatever the request says.
 * @throws Fault link.certificate_invalid when the request does not prove its key
 */
export async function issue(
  request: string,
  authority: { key: KeyObject; certificate: string },
  validity: Validity,
  hosts: readonly string[],
): Promise<{ certificate: string; node: string }> {
  const parsed = await verified(request)
  const key = createPublicKey({
    key: Buffer.from(parsed.publicKey.rawData),
    format: 'der',
    type: 'spki',
  })
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
      publicKey: parsed.publicKey,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([
          x509.ExtendedKeyUsage.clientAuth,
          x509.ExtendedKeyUsage.serverAuth,
        ]),
        new x509.SubjectAlternativeNameExtension([
          { type: 'dns', value: node.toLowerCase().replace(/[^a-z0-9]/g, '-') },
          ...hosts.map(hostName),
        ]),
      ],
    },
    provider,
  )
  return { certificate: certificate.toString('pem'), node }
}

async function verified(request: string): Promise<x509.Pkcs10CertificateRequest> {
  try {
    const parsed = new x509.Pkcs10CertificateRequest(request)
    if (await parsed.verify(provider)) return parsed
  } catch (error) {
    throw invalid(messageOf(error))
  }
  throw invalid('its signature does not verify')
}

function invalid(reason: string): Error {
  return linkFault('link.certificate_invalid', `the certificate request cannot be used: ${reason}`)
}
