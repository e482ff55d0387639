import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import { sql } from 'kysely'
import { verifyAudit } from './audit.ts'
import { backupFile, verifyBackup } from './backup-check.ts'
import { bundleOf, oldBundleOf } from './backup-fixture.ts'
import { backupTables } from './backup-format.ts'
import { Coordinator } from './coordinator.ts'
import { person, place, running } from './coordinator-fixture.ts'
import { optionsIn } from './crash-fixture.ts'
import { restoreBackup } from './restore.ts'

// A restore and the writing of a bundle, killed at every durable write and on both sides of the commit.
// Of a restore either nothing is there that could be taken for a coordinator, and the same restore goes
// through, or all of it is there, and another restore leaves it alone. Never is anything taken for new.

const program = fileURLToPath(new URL('restore-crash-fixture.ts', import.meta.url))
const mostEffects = 20
const people = ['alice', 'bob', 'carol'].map(person)

/** Runs it until the effect; false when it came to its end before. */
async function killedAt(words: readonly string[], at: number): Promise<boolean> {
  const { code } = await run(process.execPath, [program, String(at), ...words], {
    accept: [0, 137],
  })
  return code === 137
}

/** Every row of what was restored, but for the entry that says when. */
async function contentIn(directory: string) {
  await using coordinator = await Coordinator.start(optionsIn(directory))
  const { store, state, reason } = coordinator
  assert.equal((await verifyAudit(store.read)).intact, true)
  const rows: Record<string, unknown[]> = {}
  for (const table of backupTables)
    rows[table] = (await sql`select * from ${sql.table(table)}`.execute(store.read)).rows
  const log = rows.audit?.splice(-1) as [{ action: string }] // the last one
  assert.equal(log[0].action, 'backup.restored')
  return { state, reason, rows }
}

test('a restore that is killed anywhere is run again, or is complete', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-restore-crash-'))
  try {
    await using old = await place()
    const first = await running(old.options, people, 2)
    const bundles = { one: await oldBundleOf(first), two: await bundleOf(first) }
    await first[Symbol.asyncDispose]()
    await rm(join(old.directory, 'host.key')) // that host is lost
    for (const [version, bundle] of Object.entries(bundles)) {
      const file = join(root, `${version}.backup`)
      await writeFile(file, bundle)
      const straight = join(root, `${version}-straight`)
      await restoreBackup(backupFile(file), optionsIn(straight))
      const wanted = await contentIn(straight)
      assert.deepEqual([wanted.state, wanted.reason], ['recovery', 'key_missing'])
      const ends = { again: 0, complete: 0 }
      let at = 1
      for (; at <= mostEffects; at += 1) {
        const directory = join(root, `${version}-${at}`)
        if (!(await killedAt(['restore', file, directory], at))) break
        // Half of the time somebody starts it in between.
        if (at % 2 === 0) {
          await using between = await Coordinator.start(optionsIn(directory))
          assert.notEqual(between.state, 'uninitialised', `after effect ${at}`)
        }
        try {
          await restoreBackup(backupFile(file), optionsIn(directory))
          ends.again += 1
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'coordinator.not_empty', `effect ${at}`)
          ends.complete += 1
        }
        assert.deepEqual(await contentIn(directory), wanted, `killed at effect ${at}`)
      }
      t.diagnostic(`version ${version}: ${at - 1} effects, ${JSON.stringify(ends)}`)
      assert.ok(ends.again >= 3 && ends.complete === 1, JSON.stringify(ends))
    }
  } finally {
    await rm(root, { recursive: true })
  }
})

test('a backup that is killed while it is written has no name yet', async () => {
  await using here = await place()
  const first = await running(here.options, people, 2)
  await first[Symbol.asyncDispose]()
  const target = join(here.directory, 'out')
  await mkdir(target)
  const file = join(target, 'fleet.backup')
  await writeFile(file, 'the one before')
  // Killed when so many parts have been written; the first is the head.
  for (const parts of [0, 1, 2]) {
    assert.equal(await killedAt(['backup', here.directory, file, String(parts)], 0), true)
    assert.equal(await readFile(file, 'utf8'), 'the one before')
  }
  assert.equal(await killedAt(['backup', here.directory, file, '1000'], 0), false)
  assert.equal((await verifyBackup(backupFile(file))).generation, 2)
  const names = await readdir(target)
  assert.deepEqual(
    names.filter((name) => !name.startsWith('.tmp-')),
    ['fleet.backup'],
  )
})
