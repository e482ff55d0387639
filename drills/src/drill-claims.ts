import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Drill, DrillResult } from './drill.ts'
import { perform } from './runner.ts'

// The drills are the acceptance tests: every disaster of the guide, for real. What the tests of
// several catalogues share.

/** For each drill, parts of the steps that it must have claimed, and found to be so. */
export type Claims = Readonly<Record<string, readonly string[]>>

/** The program of a part, run by itself. */
function programOf(part: 'keyserver' | 'coordinator' | 'agent') {
  const index = fileURLToPath(import.meta.resolve(`@holdfast/${part}`))
  return { program: process.execPath, args: [index.replace(/index\.ts$/, 'main.ts')] }
}

/** Declares a test for every drill: it passes, proves its claims, and leaves nothing behind. */
export function proveDrills(what: string, drills: readonly Drill[], claims: Claims): void {
  describe(what, () => {
    let directory = ''
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'drills-'))
    })
    after(() => rm(directory, { recursive: true }))

    it('has a claim for every drill and a drill for every claim', () => {
      assert.deepEqual(drills.map(({ name }) => name).sort(), Object.keys(claims).sort())
      for (const { title, summary } of drills) assert.ok(title !== '' && summary.endsWith('.'))
    })

    for (const drill of drills) {
      it(`${drill.name}: ${drill.title}`, { timeout: 460_000 }, async (test) => {
        const programs = {
          command: programOf('keyserver'),
          coordinator: programOf('coordinator'),
          agent: programOf('agent'),
        }
        const result = await perform(drill, { directory, ...programs, timeout: 420_000 })
        test.diagnostic(
          `${result.seconds.toFixed(1)} s, ${result.evidence.length} pieces of evidence`,
        )
        assert.equal(result.problem, undefined, transcript(result))
        assert.equal(result.passed, true)
        const proven = result.evidence.filter((one) => one.proven === true).map(({ step }) => step)
        for (const claim of claims[drill.name] ?? []) {
          assert.ok(
            proven.some((step) => step.includes(claim)),
            `"${claim}" was not proven:\n${transcript(result)}`,
          )
        }
        assert.deepEqual(await readdir(directory), [], 'the drill left files behind')
      })
    }
  })
}

function transcript({ evidence, problem }: DrillResult): string {
  return [...evidence, problem].map((one) => JSON.stringify(one)).join('\n')
}
