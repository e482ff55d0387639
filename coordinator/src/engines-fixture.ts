import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Postgres, startPostgres } from './local-postgresql.ts'
import type { StoreLocation } from './store.ts'

export interface Engines extends AsyncDisposable {
  /** Where the file of SQLite is. */
  readonly directory: string
  readonly postgres: Postgres
  /** An empty store of each engine. */
  readonly locations: readonly StoreLocation[]
}

/** Both engines for a test, the real ones. */
export async function bothEngines(): Promise<Engines> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-engines-'))
  const postgres = await startPostgres()
  return {
    directory,
    postgres,
    locations: [
      { engine: 'sqlite', path: join(directory, 'state.db') },
      { engine: 'postgresql', url: postgres.url },
    ],
    [Symbol.asyncDispose]: async () => {
      await postgres[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
}
