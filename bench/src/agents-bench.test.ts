import assert from 'node:assert/strict'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { test } from 'node:test'
import { alwaysValid, keyId, selfSigned } from '@holdfast/link'
import { CertificatePress } from './agents-certificates.ts'
import { above, figuresOf } from './bench-fixture.ts'

// The benches of whole fleets with a handful of nodes: that they measure what they say, not how much.

test('a few agents are held, come back, and cost something', async () => {
  const figures = await figuresOf('agents', 8)
  const { agents, heldAgents, connectFailures, backAgents, freezeArrived } = figures
  assert.deepEqual(
    { agents, heldAgents, connectFailures, backAgents, freezeArrived },
    {
      ...{ agents: 8, heldAgents: 8, connectFailures: 0, backAgents: 8, freezeArrived: 8 },
    },
  )
  above(figures, 'connectsPerSecond', 'connectCpuMs', 'heartbeatsPerSecond', 'reportsPerSecond')
  above(figures, 'listMs', 'freezeMs', 'freezeLastMs', 'placementMs', 'backWithinSeconds')
})

test('a few wards open from real guardians at once', async () => {
  const figures = await figuresOf('unlock', 6)
  assert.equal(figures.failures, 0)
  above(figures, 'seconds', 'p50', 'p99', 'tries', 'cpuMicrosPerRelease')
})

test('a pressed certificate is what the authority would have issued', async () => {
  const p256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const [key, first, node] = [p256(), p256(), p256()]
  const certificate = await selfSigned(key, 'fleet', alwaysValid, { authority: true })
  const press = await CertificatePress.create({ key, certificate }, first)
  const authority = new X509Certificate(certificate)
  const serials = new Set<string>()
  for (let made = 0; made < 20; made += 1) {
    const pressed = new X509Certificate(press.issue(node))
    assert.ok(pressed.verify(authority.publicKey) && pressed.checkIssued(authority))
    assert.ok(pressed.checkPrivateKey(node))
    assert.equal(pressed.subject, `CN=${keyId(node)}`)
    serials.add(pressed.serialNumber)
  }
  assert.equal(serials.size, 20)
})
