import { type Dialect, PostgresDialect, type PostgresPool, type PostgresPoolClient } from 'kysely'
import type pg from 'pg'
import { isUnreachable } from './unreachable.ts'

// kysely over PostgreSQL. Text is text there: a zero byte, which nodes and people can send and SQLite
// keeps, would make a whole transaction fail, and with it what others have in the same one. Of several
// addresses the one whose server takes writes is used: after a
// failover the old primary is gone or read-only, and the next transaction finds the new one.

const int8 = 20
/** Milliseconds; a server that takes connections and answers nothing is as good as gone. */
const answerWithin = 15_000

/** `urls` name one database; the driver is loaded only when it is configured. */
export async function postgresDialect(urls: readonly string[]): Promise<Dialect> {
  const { default: driver } = await import('pg')
  const types = {
    getTypeParser: (oid: number, format?: 'text' | 'binary') =>
      oid === int8 ? Number : driver.types.getTypeParser(oid, format as 'text'), // its overloads are per format
  }
  const pools = urls.map((url) => {
    const pool = new driver.Pool({
      connectionString: url,
      max: 10,
      connectionTimeoutMillis: 5_000,
      query_timeout: answerWithin, // a `query_timeout` in the address counts more
      keepAlive: true,
      types,
      verify: requirePrimary,
    } as pg.PoolConfig) // `verify` is not in the published types
    // A dropped connection, idle or in use, must not end the process; the query reports it.
    pool.on('error', () => undefined)
    pool.on('connect', (client) => client.on('error', () => undefined))
    return pool
  })
  return new PostgresDialect({ pool: failover(pools) })
}

type Done = (error?: Error) => void

/** A standby answers reads; using it would fail at the first write, so it is not used at all. */
function requirePrimary(client: pg.PoolClient, done: Done): void {
  client.query('show transaction_read_only').then(({ rows }) => {
    const [row] = rows
    if (row?.transaction_read_only === 'off') done()
    else done(Object.assign(new Error('the server is a standby'), { code: '25006' }))
  }, done)
}

/** One pool of several: the last that gave a connection, or else the next that does. */
export function failover(pools: readonly Pick<pg.Pool, 'connect' | 'end'>[]): PostgresPool {
  let current = 0
  const connect = async (): Promise<PostgresPoolClient> => {
    let failure: unknown
    // Everyone who asks goes around by itself: those that fail together would push each other past.
    const first = current
    for (let tried = 0; tried < pools.length; tried += 1) {
      const index = (first + tried) % pools.length
      try {
        const client = await pools[index]?.connect()
        if (client === undefined) continue
        current = index
        return withoutHanging(client)
      } catch (error) {
        failure = error
      }
    }
    throw failure
  }
  return {
    options: {},
    connect,
    end: async () => {
      await Promise.all(pools.map((pool) => pool.end()))
    },
  }
}

/** A zero byte in a text becomes the character for what cannot be shown; bytes stay what they are. */
function storable(value: unknown): unknown {
  return typeof value === 'string' ? value.replaceAll('\0', '\ufffd') : value
}

/** A connection on which a question was not answered is not asked again, but closed. */
function withoutHanging(client: pg.PoolClient): PostgresPoolClient {
  let silent = false
  const query = async (text: unknown, values: unknown, ...rest: unknown[]): Promise<unknown> => {
    const kept = Array.isArray(values) ? values.map(storable) : values
    try {
      return await (client.query as (...words: unknown[]) => Promise<unknown>)(text, kept, ...rest)
    } catch (error) {
      silent ||= isUnreachable(error)
      throw error
    }
  }
  // A cursor is no promise and is given back as it is.
  const ask = (...question: unknown[]) =>
    typeof question[0] === 'string'
      ? query(question[0], question[1], ...question.slice(2))
      : client.query(question[0] as never)
  const release = (broken = false) => client.release(broken || silent)
  return { query: ask, release } as unknown as PostgresPoolClient // what kysely uses of a client
}
