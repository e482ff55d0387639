import assert from 'node:assert/strict'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { isObject, type JsonObject, parseJsonObject, run } from '@holdfast/base'
import { alwaysValid, keyId, selfSigned } from '@holdfast/link'
import { CertificatePress } from './agents-certificates.ts'

// The benches of whole fleets with a handful of nodes: that they measure what they say, not how much.

const program = fileURLToPath(new URL('main.ts', import.meta.url))

async function figuresOf(name: string, agents: number): Promise<JsonObject> {
  const small = ['--json', '--rounds', '1', '--seconds', '0.2', '--agents', `${agents}`]
  const { stdout } = await run(process.execPath, [program, name, ...small], { timeout: 280_000 })
  const { results } = parseJsonObject(stdout.toString('utf8'), 'the printed document')
  assert.ok(Array.isArray(results) && results.length === 1)
  const [result] = results
  assert.ok(isObject(result) && isObject(result.ours))
  return result.ours
}

function above(figures: JsonObject, ...names: string[]): void {
  for (const name of names) {
    const figure = figures[name]
    assert.ok(typeof figure === 'number' && figure > 0, `${name} is ${String(figure)}`)
  }
}

test('a few agents are held, come back, and cost something', async () => {
  const figures = await figuresOf('agents', 8)
  const { agents, connectFailures, backAgents, freezeArrived } = figures
  assert.deepEqual(
    { agents, connectFailures, backAgents, freezeArrived },
    {
      ...{ agents: 8, connectFailures: 0, backAgents: 8, freezeArrived: 8 },
    },
  )
  above(figures, 'connectsPerSecond', 'connectCpuMs', 'heartbeatsPerSecond', 'reportsPerSecond')
  above(figures, 'listMs', 'freezeMs', 'freezeLastMs', 'placementMs', 'backWithinSeconds')
})

test('wards of a lost guardian are all moved', async () => {
  const figures = await figuresOf('reshare', 10)
  const { lost, wards, notMoved } = figures
  assert.deepEqual({ lost, wards, notMoved }, { lost: 2, wards: 10, notMoved: 0 })
  above(figures, 'firstSeconds', 'lastSeconds', 'coordinatorCpuMsPerWard')
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
