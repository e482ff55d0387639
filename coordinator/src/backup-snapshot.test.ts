import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { readdir, readlink } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { sql } from 'kysely'
import { record, verifyAudit, verifyChain } from './audit.ts'
import { makeBackup } from './backup.ts'
import { bundleOf, chunked } from './backup-fixture.ts'
import {
  type BackupRow,
  type BackupTable,
  backupKeys,
  backupTables,
  rowLine,
} from './backup-format.ts'
import { readBundle } from './backup-read.ts'
import { person, place, running } from './coordinator-fixture.ts'
import { bothEngines, type Engines } from './engines-fixture.ts'
import { restoreBackup } from './restore.ts'
import { openStore, type Store, type StoreLocation } from './store.ts'
import { newId } from './ways.ts'

// What a backup reads while others write, on both engines: everything of one moment, and nobody waits.

let engines: Engines
before(async () => {
  engines = await bothEngines()
})
after(() => engines[Symbol.asyncDispose]())

const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const identity = { key: pair.privateKey, publicKey: pair.publicKey }
const event = { actor: 'test', action: 'test.entry', outcome: 'done' as const }

/** One entry of the log and one document for each number, in one transaction. */
async function write(store: Store, from: number, to: number): Promise<void> {
  await store.write(async (work) => {
    for (let number = from; number <= to; number += 1) {
      await record(work, systemClock, { ...event, subject: `entry ${number}` })
      const row = { name: `document ${number}`, version: number, body: '{}', signature: '' }
      await work.insertInto('documents').values(row).execute()
    }
  })
}

test('a backup is a picture of one moment, and those who write do not wait for it', async () => {
  for (const location of engines.locations) {
    await using store = await openStore(location)
    await write(store, 1, 250)
    const parts = makeBackup({ store, identity, clock: systemClock, bundle: newId() })
    const chunks: Buffer[] = []
    const { value: head } = await parts.next()
    chunks.push(Buffer.from(String(head)))
    // It has begun: all of this comes later, and comes through at once.
    await write(store, 251, 300)
    await store.write((work) => work.deleteFrom('documents').where('version', '<=', 100).execute())
    for await (const part of parts) chunks.push(Buffer.from(part))
    const rows = new Map<BackupTable, BackupRow[]>(backupTables.map((table) => [table, []]))
    const reader = {
      head: () => undefined,
      row: (table: BackupTable, row: BackupRow) => void rows.get(table)?.push(row),
    }
    const source = (async function* () {
      yield* chunks
    })()
    for await (const _part of readBundle(source, reader));
    const entries = rows.get('audit') ?? []
    assert.equal(entries.length, 250, location.engine)
    assert.deepEqual(verifyChain(entries as never), { entries: 250, intact: true, repairs: 0 })
    const versions = (rows.get('documents') ?? []).map(({ version }) => Number(version))
    assert.deepEqual(
      versions.sort((a, b) => a - b),
      Array.from({ length: 250 }, (_, at) => at + 1),
      location.engine,
    )
    assert.equal((await store.read.selectFrom('documents').selectAll().execute()).length, 200)
  }
})

test('a snapshot that was not read to its end is let go', async () => {
  for (const location of engines.locations) {
    await using store = await openStore(location)
    // PostgreSQL gives ten connections; one that is lost each time would end this.
    for (let turn = 0; turn < 12; turn += 1) {
      const parts = makeBackup({ store, identity, clock: systemClock, bundle: newId() })
      await parts.next()
      await parts.return(undefined)
    }
    await store.read.selectFrom('audit').select('sequence').limit(1).execute()
  }
  const open = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  )
  assert.deepEqual(
    open.filter((path) => path.startsWith(engines.directory)),
    [],
  )
})

test('a backup of one engine is restored into the other, to the last row', async () => {
  const people = ['alice', 'bob'].map(person)
  const url = new URL(engines.postgres.url)
  await using admin = await openStore({ engine: 'postgresql', url: engines.postgres.url })
  for (const name of ['origin', 'copy'])
    await sql.raw(`create database ${name}`).execute(admin.read)
  const other = (name: string): StoreLocation => {
    url.pathname = name
    return { engine: 'postgresql', url: url.href }
  }
  for (const [from, to] of [
    [other('origin'), undefined],
    [undefined, other('copy')],
  ]) {
    await using old = await place(from)
    await using first = await running(old.options, people, 2)
    await write(first.store, 1, 120)
    const bundle = await bundleOf(first)
    await using here = await place(to)
    const report = await restoreBackup(chunked(bundle), here.options)
    await using restored = await openStore(here.options.store)
    for (const table of backupTables) {
      const read = async (store: Store) => {
        const { rows } = await sql<BackupRow>`select * from ${sql.table(table)}`.execute(store.read)
        return rows.map((row) => rowLine(table, row)).sort()
      }
      const [before, after] = [await read(first.store), await read(restored)]
      assert.equal(before.length, report.rows[table])
      if (table === 'audit') assert.equal(after.length, before.length + 1, 'that it was restored')
      else assert.deepEqual(after, before, table)
    }
    assert.equal((await verifyAudit(restored.read)).intact, true)
  }
})

test('every table of a backup is read by its primary key', async () => {
  const [location] = engines.locations
  assert.ok(location)
  await using store = await openStore(location)
  for (const table of backupTables) {
    const { rows } = await sql<{
      name: string
    }>`select name from pragma_table_info(${table}) where pk > 0 order by pk`.execute(store.read)
    assert.deepEqual(
      rows.map(({ name }) => name),
      [...backupKeys[table]],
      table,
    )
  }
})
