import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { codeOf } from '@holdfast/base'
import { type Dialect, SqliteAdapter, type SqliteDatabase, SqliteDialect } from 'kysely'

// kysely over Node's own SQLite. Two traps are closed here: an object in first position is read as
// named parameters, so a Date or a Map would be stored as NULL silently; and kysely believes that
// SQLite cannot roll a schema change back, which leaves half a migration behind.

/** Durable settings: a commit that was acknowledged survives a power cut. */
const settings = [
  'pragma journal_mode = wal',
  'pragma synchronous = full',
  'pragma foreign_keys = on',
  'pragma trusted_schema = off',
]

class TransactionalSqliteAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true
  }
}

class NodeSqliteDialect extends SqliteDialect {
  override createAdapter(): SqliteAdapter {
    return new TransactionalSqliteAdapter()
  }
}

/** Opens a database file for one writing process; or once more in that process, to read in it. */
export function sqliteDialect(path: string, use: 'writing' | 'reading' = 'writing'): Dialect {
  const open = (): SqliteDatabase => {
    const readOnly = use === 'reading'
    if (path !== ':memory:' && !readOnly) keepPrivate(path)
    const database = new DatabaseSync(path, { timeout: 5_000, readOnly })
    if (!readOnly) for (const setting of settings) database.exec(setting)
    const prepared = new PreparedStatements(database)
    return {
      close: () => database.close(),
      prepare: (sql) => {
        // A full disk or an I/O error has rolled back already (sqlite.org/lang_transaction.html);
        // saying it again would be an error, and hide the first one.
        const over = sql === 'rollback' && !database.isTransaction
        const { statement, reader } = prepared.get(over ? 'select 1' : sql)
        return {
          reader,
          all: (parameters) => statement.all({}, ...checked(parameters)),
          run: (parameters) => statement.run({}, ...checked(parameters)),
          iterate: (parameters) => statement.iterate({}, ...checked(parameters)),
        }
      },
    }
  }
  return new NodeSqliteDialect({ database: async () => open() })
}

/**
 * The state is for its owner alone, whatever the directory is for: hashes of passwords are in it. SQLite
 * gives its own files beside it the same mode (sqlite.org/wal.html). A file that is there is not opened
 * here: closing it again would give up the locks that this process has on it (fcntl_locking(2)).
 */
function keepPrivate(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
    return
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error
  }
  for (const end of ['', '-wal', '-shm'])
    try {
      chmodSync(`${path}${end}`, 0o600)
    } catch (error) {
      // Not there, or somebody else's, who has decided.
      if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'EPERM') throw error
    }
}

/** Statements that may be asked again; the texts come from this part's own queries. */
const statementsKept = 256

/** Preparing costs more than most of the queries themselves; SQLite follows schema changes by itself. */
class PreparedStatements {
  readonly #database: DatabaseSync
  readonly #known = new Map<string, { statement: StatementSync; reader: boolean }>()

  constructor(database: DatabaseSync) {
    this.#database = database
  }

  get(sql: string): { statement: StatementSync; reader: boolean } {
    const found = this.#known.get(sql)
    if (found !== undefined) return found
    const statement = this.#database.prepare(sql)
    const made = { statement, reader: statement.columns().length > 0 }
    // Lists of different lengths make different texts; the oldest text makes room.
    const [oldest] = this.#known.size < statementsKept ? [] : this.#known.keys()
    if (oldest !== undefined) this.#known.delete(oldest)
    this.#known.set(sql, made)
    return made
  }
}

function checked(parameters: readonly unknown[]): SQLInputValue[] {
  return parameters.map((value) => {
    const plain =
      value === null ||
      ['string', 'number', 'bigint'].includes(typeof value) ||
      value instanceof Uint8Array
    if (!plain) throw new TypeError(`a ${typeof value} cannot be stored`)
    return value as SQLInputValue // every kind was just checked
  })
}
