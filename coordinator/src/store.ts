import { announce, isFault, messageOf } from '@holdfast/base'
import { Kysely, sql, type Transaction } from 'kysely'
import { Migrator } from 'kysely/migration'
import { coordinatorFault } from './faults.ts'
import { init } from './migrations/001-init.ts'
import { reshares } from './migrations/002-reshares.ts'
import { attempts } from './migrations/003-attempts.ts'
import { issues } from './migrations/004-issues.ts'
import { issueOrder } from './migrations/005-issue-order.ts'
import { sessionNumbers } from './migrations/006-session-numbers.ts'
import { postgresDialect } from './postgres-driver.ts'
import { sqliteDialect } from './sqlite-driver.ts'
import type { Tables } from './tables.ts'

export { isUnreachable } from './unreachable.ts'

// The one query code base for both engines. What is asked of an engine is transactions that
// serialise writers of the same rows (SQLite: one writer; PostgreSQL: SERIALIZABLE with a bounded
// number of retries), upserts and RETURNING; nothing needs one particular primary.

export type Database = Kysely<Tables>
export type Work = Transaction<Tables>

export interface Store extends AsyncDisposable {
  readonly engine: 'sqlite' | 'postgresql'
  readonly read: Database
  /** Runs `work` in one serialisable transaction; it may run again after a conflict. */
  write<T>(work: (transaction: Work) => Promise<T>): Promise<T>
  /** Everything as it is at the first reading, while others write. It holds a connection: end it soon. */
  snapshot(): Promise<Snapshot>
}

export interface Snapshot extends AsyncDisposable {
  readonly read: Work
}

/** With several addresses of one PostgreSQL, the one that takes writes is used. */
export type StoreLocation =
  | { engine: 'sqlite'; path: string }
  | { engine: 'postgresql'; url: string | readonly string[] }

type Meeting = 'conflict' | 'duplicate' | 'busy'

/** How often a transaction may meet others in each of these ways before it is given up. */
const mostMeetings: Readonly<Record<Meeting, number>> = { conflict: 100, duplicate: 5, busy: 12 }

/**
 * Opens the store and brings its schema up to date.
 * @throws Fault coordinator.storage_unreachable, coordinator.storage_newer
 */
export async function openStore(location: StoreLocation): Promise<Store> {
  const dialect =
    location.engine === 'sqlite'
      ? sqliteDialect(location.path)
      : await postgresDialect([location.url].flat())
  const database = new Kysely<Tables>({ dialect })
  try {
    await migrate(database, location.engine === 'sqlite' ? 'blob' : 'bytea')
  } catch (cause) {
    await database.destroy().catch(() => undefined)
    if (isFault(cause)) throw cause
    throw coordinatorFault(
      'coordinator.storage_unreachable',
      `the ${location.engine} store cannot be used: ${messageOf(cause)}`,
      { cause },
    )
  }
  const one = queue()
  return {
    engine: location.engine,
    read: database,
    write: (work) => one(() => serialisable(database, location.engine, work)),
    snapshot: () => snapshotOf(database, location),
    [Symbol.asyncDispose]: () => database.destroy(),
  }
}

async function migrate(database: Database, bytes: 'blob' | 'bytea'): Promise<void> {
  const migrations = {
    '001-init': { up: (schema: Kysely<unknown>) => init(schema, bytes) },
    '002-reshares': { up: reshares },
    '003-attempts': { up: attempts },
    '004-issues': { up: issues },
    '005-issue-order': { up: issueOrder },
    '006-session-numbers': { up: sessionNumbers },
  }
  const newer = (await migrated(database)).filter((name) => !Object.hasOwn(migrations, name))
  if (newer.length > 0)
    throw coordinatorFault(
      'coordinator.storage_newer',
      `a newer version of Holdfast has changed this store (${newer.join(', ')})`,
      { hint: 'start that version or a later one; this one has changed nothing' },
    )
  const migrator = new Migrator({
    db: database,
    provider: { getMigrations: async () => migrations },
  })
  const { error } = await migrator.migrateToLatest()
  if (error !== undefined) throw error
}

/** The names of the migrations that the store has been through. */
async function migrated(database: Database): Promise<string[]> {
  const tables = await database.introspection.getTables({ withInternalKyselyTables: true })
  if (!tables.some(({ name }) => name === 'kysely_migration')) return []
  const { rows } = await sql<{
    name: string
  }>`select name from kysely_migration order by name`.execute(database)
  return rows.map(({ name }) => name)
}

async function serialisable<T>(
  database: Database,
  engine: Store['engine'],
  work: (transaction: Work) => Promise<T>,
): Promise<T> {
  const met: Record<Meeting, number> = { conflict: 0, duplicate: 0, busy: 0 }
  for (;;) {
    try {
      const transaction = database.transaction()
      const isolated =
        engine === 'postgresql' ? transaction.setIsolationLevel('serializable') : transaction
      const result = await isolated.execute(async (transaction) => {
        const made = await work(transaction)
        announce('write', `${engine}: before commit`)
        return made
      })
      announce('write', `${engine}: commit`)
      return result
    } catch (error) {
      const meeting = meetingOf(error)
      if (meeting === undefined) throw error
      met[meeting] += 1
      if (met[meeting] >= mostMeetings[meeting]) throw error
      // PostgreSQL tells it in the moment in which the other one is through. Whoever begins anew then is
      // as early as the other's next one; whoever waits first comes too late again, as often as it is tried.
      const pause = meeting === 'busy' ? 2 ** met.busy * (0.5 + Math.random()) : 0
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }
}

/**
 * One reading transaction. SQLite: a connection of its own, because the store's only one would be taken
 * from everybody; readers and the writer do not wait for each other (sqlite.org/wal.html). PostgreSQL:
 * deferrable, so that it neither fails for what others write nor shows what no order of theirs gives
 * (SET TRANSACTION).
 */
async function snapshotOf(database: Database, location: StoreLocation): Promise<Snapshot> {
  if (location.engine === 'sqlite') {
    const own = new Kysely<Tables>({ dialect: sqliteDialect(location.path, 'reading') })
    const end = () => own.destroy()
    try {
      return { read: await own.startTransaction().execute(), [Symbol.asyncDispose]: end }
    } catch (error) {
      await end()
      throw error
    }
  }
  const read = await database
    .startTransaction()
    .setIsolationLevel('serializable')
    .setAccessMode('read only')
    .execute()
  const end = async () => {
    // It has ended by itself when its connection is gone.
    await read
      .rollback()
      .execute()
      .catch(() => undefined)
  }
  try {
    await sql`set transaction deferrable`.execute(read)
  } catch (error) {
    await end()
    throw error
  }
  return { read, [Symbol.asyncDispose]: end }
}

/**
 * SQLSTATE 40001 serialisation failure, 40P01 deadlock; SQLite 5 busy, with more in the higher bits when what
 * was read is old by now (517). Two instances that choose a key by
 * what they have read, as the next number of the audit log, the next epoch of a ward or a free address,
 * also meet as a duplicate (PostgreSQL 15, 13.5 Serialization Failure Handling): that it is taken is seen
 * at the next attempt. A duplicate for good, of which there is no other sign, is told after a few.
 */
function meetingOf(error: unknown): Meeting | undefined {
  const { code, errcode, constraint } = error as Record<string, unknown>
  if (code === '23505') return constraint === 'audit_key' ? 'conflict' : 'duplicate'
  if (code === '40001' || code === '40P01') return 'conflict'
  return typeof errcode === 'number' && (errcode & 0xff) === 5 ? 'busy' : undefined
}

/** One writer at a time within a process: instances may meet, but a process does not meet itself. */
function queue(): <T>(task: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (task) => {
    const next = last.then(task, task)
    last = next.catch(() => undefined)
    return next
  }
}

/** True for a violated unique or primary key: SQLSTATE 23505; SQLite 2067 and 1555. */
export function isDuplicate(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown }
  return code === '23505' || errcode === 2067 || errcode === 1555
}
