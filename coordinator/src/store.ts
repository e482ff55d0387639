import { messageOf } from '@holdfast/base'
import { type Dialect, Kysely, PostgresDialect, type Transaction } from 'kysely'
import { Migrator } from 'kysely/migration'
import { coordinatorFault } from './faults.ts'
import { init } from './migrations/001-init.ts'
import { sqliteDialect } from './sqlite-driver.ts'
import type { Tables } from './tables.ts'

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
}

export type StoreLocation =
  | { engine: 'sqlite'; path: string }
  | { engine: 'postgresql'; url: string }

const mostAttempts = 12

/** Opens the store and brings its schema up to date. @throws Fault coordinator.storage_unreachable */
export async function openStore(location: StoreLocation): Promise<Store> {
  const dialect =
    location.engine === 'sqlite' ? sqliteDialect(location.path) : await postgres(location.url)
  const database = new Kysely<Tables>({ dialect })
  try {
    await migrate(database, location.engine === 'sqlite' ? 'blob' : 'bytea')
  } catch (cause) {
    await database.destroy().catch(() => undefined)
    throw coordinatorFault(
      'coordinator.storage_unreachable',
      `the ${location.engine} store cannot be used: ${messageOf(cause)}`,
      { cause },
    )
  }
  return {
    engine: location.engine,
    read: database,
    write: (work) => serialisable(database, location.engine, work),
    [Symbol.asyncDispose]: () => database.destroy(),
  }
}

async function migrate(database: Database, bytes: 'blob' | 'bytea'): Promise<void> {
  const migrator = new Migrator({
    db: database,
    provider: {
      getMigrations: async () => ({
        '001-init': { up: (schema: Kysely<unknown>) => init(schema, bytes) },
      }),
    },
  })
  const { error } = await migrator.migrateToLatest()
  if (error !== undefined) throw error
}

async function serialisable<T>(
  database: Database,
  engine: Store['engine'],
  work: (transaction: Work) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const transaction = database.transaction()
      const isolated =
        engine === 'postgresql' ? transaction.setIsolationLevel('serializable') : transaction
      return await isolated.execute(work)
    } catch (error) {
      if (attempt >= mostAttempts || !isConflict(error)) throw error
      await new Promise((resolve) => setTimeout(resolve, 2 ** attempt * (0.5 + Math.random())))
    }
  }
}

/** SQLSTATE 40001 serialisation failure, 40P01 deadlock; SQLite 5 busy. */
function isConflict(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown }
  return code === '40001' || code === '40P01' || errcode === 5
}

/** True for a violated unique or primary key: SQLSTATE 23505; SQLite 2067 and 1555. */
export function isDuplicate(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown }
  return code === '23505' || errcode === 2067 || errcode === 1555
}

async function postgres(url: string): Promise<Dialect> {
  // Loaded only when configured: most installations run on SQLite.
  const { default: pg } = await import('pg')
  const int8 = 20
  const types = {
    getTypeParser: (oid: number, format?: 'text' | 'binary') =>
      oid === int8 ? Number : pg.types.getTypeParser(oid, format as 'text'),
  }
  const pool = new pg.Pool({
    connectionString: url,
    max: 10,
    connectionTimeoutMillis: 5_000,
    types,
  })
  // A dropped idle connection must not end the process; the next query reports it.
  pool.on('error', () => undefined)
  return new PostgresDialect({ pool })
}
