import { type KeyObject, sign } from 'node:crypto'
import { type Clock, parseJsonObject } from '@holdfast/base'
import { sql } from 'kysely'
import {
  type BackupHead,
  type BackupRow,
  type BackupTable,
  backupKeys,
  backupTables,
  digestOf,
  headLine,
  rowLine,
  rowsAtOnce,
  segmentLine,
  signedText,
} from './backup-format.ts'
import type { Identity } from './identity.ts'
import type { Store, Work } from './store.ts'

export interface BackupDeps {
  store: Store
  identity: Pick<Identity, 'key' | 'publicKey'>
  clock: Clock
  /** What the bundle is called in its head and in the audit log; random. */
  bundle: string
}

/** Characters of a segment, beyond which no row is added; the one that goes beyond may be far longer. */
const segmentSize = 256 * 1024

/**
 * Everything in one consistent reading, signed, in parts: the head and then segments, which are read
 * from the store when they are asked for. Others write meanwhile. Holds no secret in the clear.
 */
export async function* makeBackup(deps: BackupDeps): AsyncGenerator<string> {
  const { store, identity, clock, bundle } = deps
  await using snapshot = await store.snapshot()
  const { read } = snapshot
  const counts = new Map<BackupTable, number>()
  for (const table of backupTables) counts.set(table, await count(read, table))
  const head: BackupHead = {
    holdfast: 'coordinator-backup',
    version: 2,
    bundle,
    ...(await shownIn(read)),
    at: clock.now(),
    identity: identity.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    rows: Object.fromEntries(counts),
  }
  yield headLine(head, sign('sha256', signedText(head), identity.key))
  yield* segmentsOf(linesOf(read), bundle, identity.key)
}

/** Rows' lines in segments; pure but for the signatures. Of no row there is one empty segment. */
export async function* segmentsOf(
  lines: AsyncIterable<string> | Iterable<string>,
  bundle: string,
  key: KeyObject,
  size = segmentSize,
): AsyncGenerator<string> {
  let number = 0
  const closed = (rows: string, last: boolean): string => {
    number += 1
    const digest = digestOf(rows)
    const segment = {
      holdfast: 'coordinator-backup-segment',
      bundle,
      number,
      digest,
      last,
    } as const
    return rows + segmentLine(segment, sign('sha256', signedText(segment), key))
  }
  let rows: string[] = []
  let length = 0
  for await (const line of lines) {
    // Only now is it known that the one before is not the last.
    if (length >= size) {
      yield closed(rows.join(''), false)
      rows = []
      length = 0
    }
    rows.push(line)
    length += line.length
  }
  yield closed(rows.join(''), true)
}

async function* linesOf(read: Work): AsyncGenerator<string> {
  for (const table of backupTables)
    for await (const row of rowsOf(read, table)) yield rowLine(table, row)
}

/** What is only being prepared is left out. */
const wanted: Partial<Record<BackupTable, ReturnType<typeof sql>>> = {
  header: sql`id = 1`,
  ways: sql`state <> 'prepared'`,
  secrets: sql`name <> 'next-data-key'`,
}
const everything = sql`1 = 1`

async function count(read: Work, table: BackupTable): Promise<number> {
  const which = wanted[table] ?? everything
  const { rows } = await sql<{
    rows: number
  }>`select count(*) as rows from ${sql.table(table)} where ${which}`.execute(read)
  return Number(rows[0]?.rows ?? 0)
}

/** The rows of a table by its primary key, a page at a time, each after the last row of the one before. */
async function* rowsOf(read: Work, table: BackupTable): AsyncGenerator<BackupRow> {
  const names: readonly string[] = backupKeys[table]
  const key = sql.join(names.map((name) => sql.ref(name)))
  const which = wanted[table] ?? everything
  const most = rowsAtOnce(table)
  for (let last: BackupRow | undefined; ; ) {
    const values = names.map((name) => last?.[name])
    const after = last === undefined ? sql`` : sql`and (${key}) > (${sql.join(values)})`
    const { rows } = await sql<BackupRow>`select * from ${sql.table(table)} where ${which} ${after}
      order by ${key} limit ${most}`.execute(read)
    yield* rows
    last = rows.at(-1)
    if (rows.length < most) return
  }
}

/** Whose state it is, as this very reading has it. A header that is damaged is archived all the same. */
async function shownIn(read: Work): Promise<Pick<BackupHead, 'cluster' | 'generation'>> {
  const row = await read.selectFrom('header').select('body').where('id', '=', 1).executeTakeFirst()
  try {
    const { cluster, generation } = parseJsonObject(row?.body ?? '{}', 'the header')
    return { cluster: String(cluster ?? ''), generation: Number(generation ?? 0) }
  } catch {
    return { cluster: '', generation: 0 }
  }
}
