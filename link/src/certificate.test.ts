import assert from 'node:assert/strict'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { run } from '@holdfast/base'
import { alwaysValid, certificateRequest, issue, selfSigned } from './certificate.ts'
import { keyId } from './key-id.ts'

function p256() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

async function authority() {
  const key = p256()
  return { key, certificate: await selfSigned(key, 'test fleet', alwaysValid, { authority: true }) }
}

async function folder() {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-certificate-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

/** What OpenSSL's strict verifier says about a certificate for one purpose. */
async function opensslVerify(purpose: string, authorityPem: string, pem: string): Promise<string> {
  await using here = await folder()
  await writeFile(join(here.path, 'ca.pem'), authorityPem)
  await writeFile(join(here.path, 'leaf.pem'), pem)
  const args = ['verify', '-x509_strict', '-purpose', purpose, '-CAfile']
  const result = await run(
    'openssl',
    [...args, join(here.path, 'ca.pem'), join(here.path, 'leaf.pem')],
    { accept: [0, 1, 2] },
  )
  return result.code === 0 ? 'OK' : result.stderr
}

test("a node's certificate passes OpenSSL's strict verification as client and as server", async () => {
  const fleet = await authority()
  const key = p256()
  const { certificate, node } = await issue(await certificateRequest(key), fleet, alwaysValid, [
    '10.88.0.7',
    'fd00::7',
  ])
  assert.equal(node, keyId(key))
  assert.equal(await opensslVerify('sslclient', fleet.certificate, certificate), 'OK')
  assert.equal(await opensslVerify('sslserver', fleet.certificate, certificate), 'OK')
  const parsed = new X509Certificate(certificate)
  assert.equal(parsed.subject, `CN=${node}`)
  assert.match(
    parsed.subjectAltName ?? '',
    /IP Address:10\.88\.0\.7, IP Address:FD00:0:0:0:0:0:0:7/,
  )
  assert.equal(parsed.ca, false)
})

test('the same verification refuses a certificate of another authority', async () => {
  const [fleet, other] = [await authority(), await authority()]
  const { certificate } = await issue(await certificateRequest(p256()), other, alwaysValid, [])
  assert.match(await opensslVerify('sslclient', fleet.certificate, certificate), /error/)
})

test('the authority and the coordinator identity pass strict verification by themselves', async () => {
  const fleet = await authority()
  assert.equal(await opensslVerify('any', fleet.certificate, fleet.certificate), 'OK')
  const identity = await selfSigned(p256(), 'Holdfast coordinator', alwaysValid, {
    hosts: ['localhost', '127.0.0.1', '::1'],
  })
  assert.equal(await opensslVerify('sslserver', identity, identity), 'OK')
})

test("a node's certificate cannot issue certificates", async () => {
  const fleet = await authority()
  const key = p256()
  const { certificate } = await issue(await certificateRequest(key), fleet, alwaysValid, [])
  const forged = await issue(
    await certificateRequest(p256()),
    { key, certificate },
    alwaysValid,
    [],
  )
  const chain = `${fleet.certificate}\n${certificate}`
  assert.match(await opensslVerify('sslclient', chain, forged.certificate), /invalid CA|error/)
})

test('a request must prove its key, be on P-256, and be a request at all', async () => {
  const fleet = await authority()
  const request = await certificateRequest(p256())
  const der = Buffer.from(request.replace(/-----[^-]+-----|\s/g, ''), 'base64')
  der[der.length - 3] = (der[der.length - 3] ?? 0) ^ 1
  const pem = (bytes: Buffer) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----`
  const rejected = { code: 'link.certificate_invalid' }
  await assert.rejects(issue(pem(der), fleet, alwaysValid, []), rejected)
  await assert.rejects(issue('rubbish', fleet, alwaysValid, []), rejected)
  await using here = await folder()
  const path = join(here.path, 'key.pem')
  await run('openssl', ['ecparam', '-name', 'secp384r1', '-genkey', '-noout', '-out', path])
  const other = await run('openssl', ['req', '-new', '-key', path, '-subj', '/CN=admin'])
  await assert.rejects(issue(other.stdout.toString('utf8'), fleet, alwaysValid, []), rejected)
})

test('a request made by openssl gets a name from its key, not the one it asks for', async () => {
  await using here = await folder()
  const path = join(here.path, 'key.pem')
  await run('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', path])
  const request = await run('openssl', ['req', '-new', '-key', path, '-subj', '/CN=admin'])
  const fleet = await authority()
  const { certificate, node } = await issue(request.stdout.toString('utf8'), fleet, alwaysValid, [])
  assert.equal(new X509Certificate(certificate).subject, `CN=${node}`)
})
