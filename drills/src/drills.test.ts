import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { drills, runDrill } from './catalogue.ts'
import type { DrillResult } from './drill.ts'

// The drills are the acceptance tests: every disaster of the guide, for real.

const keyserver = fileURLToPath(import.meta.resolve('@holdfast/keyserver')).replace(
  /index\.ts$/,
  'main.ts',
)

/** What a drill must have claimed, and found to be so, for its name to be deserved. */
const claims: Readonly<Record<string, readonly string[]>> = {
  'node-stolen': ['the stolen disk no longer opens', 'old keys are destroyed'],
  'planned-outage': ['the old passphrase is dead', 'the node opens by itself'],
  'unplanned-outage': ['the owner types the passphrase meanwhile', 'the node opens by itself'],
  'technician-remote-site': [
    'a stranger cannot read the answer',
    'what the technician had is dead',
  ],
  'keys-carried-to-site': [
    'what was carried does not open it any more',
    'compromised and destroyed',
  ],
  'backup-passphrase': ['the backup passphrase opens it', 'a wrong passphrase is refused'],
  'shared-set-member-killed': ['in the middle of an answer', 'all 60 machines open'],
  'shared-set-lost': ['bound to another server as well opens', 'the disk is untouched'],
  'enrol-degraded': ['the threshold was not lowered', 'has bound the node to 2 of 3'],
  'enrol-offline': ['a foreign advertisement is refused', 'the server it had never talked to'],
  'five-regions': [
    'europe-1 opens without europe',
    'europe-1 without europe and america: stays shut',
  ],
  'server-rebuilt': ['the hidden ones included', 'bound before the rotation opens'],
  'key-exposure': ['names what it could not reach', 'node-4 does not, as the plan had said'],
  'header-destroyed': ['one holder is not enough', 'two holders restore it'],
  'panic-levels': [
    'two holders brought it back after level 2',
    'names the copy it could not reach',
  ],
}

describe('disasters, executed for real', () => {
  let directory = ''
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'drills-'))
  })
  after(() => rm(directory, { recursive: true }))

  it('has a claim for every drill and a drill for every claim', () => {
    assert.deepEqual(drills.map(({ name }) => name).sort(), Object.keys(claims).sort())
    for (const { title, summary } of drills) assert.ok(title !== '' && summary.endsWith('.'))
  })

  for (const { name, title } of drills) {
    it(`${name}: ${title}`, { timeout: 240_000 }, async (test) => {
      const command = { program: process.execPath, args: [keyserver] }
      const result = await runDrill(name, { directory, command, timeout: 200_000 })
      test.diagnostic(
        `${result.seconds.toFixed(1)} s, ${result.evidence.length} pieces of evidence`,
      )
      assert.equal(result.problem, undefined, transcript(result))
      assert.equal(result.passed, true)
      const proven = result.evidence.filter((one) => one.proven === true).map(({ step }) => step)
      for (const claim of claims[name] ?? []) {
        assert.ok(
          proven.some((step) => step.includes(claim)),
          `"${claim}" was not proven:\n${transcript(result)}`,
        )
      }
      assert.deepEqual(await readdir(directory), [], 'the drill left files behind')
    })
  }
})

function transcript({ evidence, problem }: DrillResult): string {
  return [...evidence, problem].map((one) => JSON.stringify(one)).join('\n')
}
