import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { openNodeDirectory, ReleaseLog, releaseLogName } from '@holdfast/agent'
import { run } from '@holdfast/base'
import type { Finding } from './doctor-findings.ts'
import { requireCommands } from './doctor-fixture.ts'

// What a node wrote down of its answers, looked at on its console: real files, by the real command.

const program = fileURLToPath(new URL('main.ts', import.meta.url))

async function nodeDirectory() {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-doctor-log-'))
  await (await openNodeDirectory(path))[Symbol.asyncDispose]()
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

/** The layer of the log, as the doctor has found it. */
async function look(path: string, ...more: string[]): Promise<Finding> {
  const words = ['doctor', 'node', '--directory', path, '--json', ...more]
  const { stdout } = await run(process.execPath, [program, ...words], { accept: [2] })
  const { findings, failed }: { findings: Finding[]; failed: string } = JSON.parse(`${stdout}`)
  assert.equal(failed, 'agent', 'no agent runs there, and the log is looked at all the same')
  await requireCommands(findings)
  const found = findings.find(({ layer }) => layer === 'release log')
  assert.ok(found)
  return found
}

test('a damaged part of the log of releases is named by the doctor, whichever it is', async () => {
  await using node = await nodeDirectory()
  const path = join(node.path, releaseLogName)
  assert.match((await look(node.path)).text, /^0 entries/)
  const { log } = await ReleaseLog.open(path, () => 0, { segmentBytes: 700, segmentsKept: 3 })
  for (let turn = 0; turn < 30; turn += 1) {
    const ward = `ward-${turn}`
    await log.append({ event: 'released', ward, epoch: 1, source: '192.0.2.1', code: '' })
  }
  const whole = await look(node.path)
  assert.equal(whole.state, 'ok', whole.text)
  assert.match(whole.text, /^\d+ entries hang together$/)

  const names = (await readdir(node.path)).filter((name) => /^releases\.log\.\d+$/.test(name))
  assert.equal(names.length, 3)
  for (const name of names) {
    const part = join(node.path, name)
    const text = await readFile(part, 'utf8')
    await writeFile(part, text.replace('192.0.2.1', '192.0.2.2'))
    const found = await look(node.path)
    assert.equal(found.state, 'warning')
    assert.match(found.text, new RegExp(`${name} does not hang together at line \\d`))
    assert.equal(found.next?.[0], `cp -a ${node.path}/releases.log* DIR`)
    await writeFile(part, text)
  }
  const growing = await readFile(path)
  await rm(path)
  const lost = await look(node.path)
  assert.equal(lost.state, 'warning')
  assert.match(lost.text, /releases\.log is gone or empty/)
  await writeFile(path, growing)
  assert.equal((await look(node.path)).state, 'ok')
  assert.equal((await look(node.path, '--quick')).state, 'not looked at')
})
