import assert from 'node:assert/strict'
import { chmod, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { isFault, systemClock } from '@holdfast/base'
import { sql } from 'kysely'
import { recordAlone, verifyAudit } from './audit.ts'
import { newestIssue, nextIssue } from './command-issues.ts'
import { orderedSince } from './commands-delivery.ts'
import { type Postgres, startPostgres } from './local-postgresql.ts'
import { isDuplicate, openStore, type Store, type StoreLocation } from './store.ts'

// One suite, both engines: what the queries rely on is proven for each, on the real thing.

interface Engine {
  start(): Promise<{ location: StoreLocation } & AsyncDisposable>
}

const engines: Record<Store['engine'], Engine> = {
  sqlite: {
    start: async () => {
      const directory = await mkdtemp(join(tmpdir(), 'holdfast-store-'))
      return {
        location: { engine: 'sqlite', path: join(directory, 'state.db') },
        [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
      }
    },
  },
  postgresql: {
    start: async () => {
      const server: Postgres = await startPostgres()
      return {
        location: { engine: 'postgresql', url: server.url },
        [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
      }
    },
  },
}

const lease = (address: string, until: number) => ({ address, node: null, until })
const event = (actor: string) => ({
  actor,
  action: 'test',
  subject: 'x',
  outcome: 'done' as const,
})

for (const [name, engine] of Object.entries(engines)) {
  suite(name, () => {
    let place: Awaited<ReturnType<Engine['start']>>
    let store: Store
    before(async () => {
      place = await engine.start()
      store = await openStore(place.location)
    })
    after(async () => {
      await store[Symbol.asyncDispose]()
      await place[Symbol.asyncDispose]()
    })

    test('the schema is made once; opening again changes nothing', async () => {
      await store.write((work) => work.insertInto('leases').values(lease('10.0.0.1', 1)).execute())
      await using again = await openStore(place.location)
      assert.equal((await again.read.selectFrom('leases').selectAll().execute()).length, 1)
    })

    test('a store of the version before numbers its open commands by when they were given', async () => {
      const none = { approved_by: null, finished: null, progress: null, output: null }
      await store.write((work) =>
        work
          .insertInto('commands')
          .values({
            ...{ id: 'order', node: 'n', command: 'rekey', arguments: '{}', by: 'ada' },
            ...{ state: 'waiting', issue: 1, created: 1_800_000_000_123, expires: 2 },
            ...{ ...none, result: null, code: null, message: null },
          })
          .execute(),
      )
      await sql`alter table nodes drop column session`.execute(store.read)
      await sql`drop index commands_by_issue`.execute(store.read)
      await sql`alter table commands drop column issue`.execute(store.read)
      await sql`delete from kysely_migration where name >= '004-issues'`.execute(store.read)
      await using again = await openStore(place.location)
      const row = await again.read.selectFrom('commands').select('issue').executeTakeFirstOrThrow()
      assert.equal(Number(row.issue), 1_800_000_000_123)
    })

    test('a store that a newer version has changed is refused by name, and left as it is', async () => {
      const row = { name: '999-later', timestamp: new Date(0).toISOString() }
      const { read } = store
      await sql`insert into kysely_migration (name, timestamp) values (${row.name}, ${row.timestamp})`.execute(
        read,
      )
      await assert.rejects(openStore(place.location), (error) => {
        assert.ok(isFault(error, 'coordinator.storage_newer'))
        return error.message.includes('999-later')
      })
      await sql`delete from kysely_migration where name = ${row.name}`.execute(read)
      await using _again = await openStore(place.location)
    })

    // SQLite has one process: service.ts locks the directory.
    if (name === 'postgresql')
      test('a key that another instance takes while it is chosen is chosen anew', async () => {
        await using other = await openStore(place.location)
        const [inserted, tried] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
        const first = store.write(async (work) => {
          await work.insertInto('leases').values(lease('free 1', 1)).execute()
          inserted.resolve()
          await tried.promise
        })
        await inserted.promise
        let attempts = 0
        const second = other.write(async (work) => {
          attempts += 1
          // The first choice is made before the other's key can be seen.
          const rows =
            attempts === 1
              ? []
              : await work
                  .selectFrom('leases')
                  .where('address', '=', 'free 1')
                  .select('until')
                  .execute()
          const choice = rows.length === 0 ? 'free 1' : 'free 2'
          const inserting = work.insertInto('leases').values(lease(choice, 2)).execute()
          tried.resolve()
          await inserting
          return choice
        })
        await first
        assert.deepEqual([await second, attempts], ['free 2', 2])
      })

    test('a change that meets those of somebody else again and again comes through', async () => {
      await using other = await openStore(place.location)
      await store.write((work) => work.insertInto('leases').values(lease('met', 0)).execute())
      const raised = (through: Store, meanwhile: () => Promise<void>) =>
        through.write(async (work) => {
          const { until } = await work
            .selectFrom('leases')
            .select('until')
            .where('address', '=', 'met')
            .executeTakeFirstOrThrow()
          await meanwhile()
          await work
            .updateTable('leases')
            .set({ until: until + 1 })
            .where('address', '=', 'met')
            .execute()
        })
      const times = name === 'postgresql' ? 20 : 3 // SQLite has one process in earnest
      let met = 0
      await raised(store, async () => {
        if (met === times) return
        met += 1
        await raised(other, async () => undefined)
      })
      const { until } = await store.read
        .selectFrom('leases')
        .select('until')
        .where('address', '=', 'met')
        .executeTakeFirstOrThrow()
      assert.deepEqual([met, until], [times, times + 1])
    })

    if (name === 'postgresql')
      test('two instances that open a new store at once make its schema once', async () => {
        await using other = await engine.start()
        const opened = await Promise.all([1, 2].map(() => openStore(other.location)))
        for (const each of opened) {
          await recordAlone(each, systemClock, event('x'))
          await each[Symbol.asyncDispose]()
        }
      })

    test('whole numbers up to 2^53, bytes, empty text and absent values come back as they were', async () => {
      const value = Buffer.from([0, 1, 127, 128, 255])
      const row = { name: 'one', generation: Number.MAX_SAFE_INTEGER, value }
      await store.write((work) => work.insertInto('secrets').values(row).execute())
      const back = await store.read.selectFrom('secrets').selectAll().executeTakeFirstOrThrow()
      assert.equal(back.generation, Number.MAX_SAFE_INTEGER)
      assert.deepEqual(Buffer.from(back.value), value)
      await store.write((work) => work.insertInto('leases').values(lease('', 0)).execute())
      const empty = await store.read
        .selectFrom('leases')
        .selectAll()
        .where('address', '=', '')
        .executeTakeFirstOrThrow()
      assert.deepEqual([empty.node, empty.until], [null, 0])
    })

    test('a zero byte in a text does not make the transaction fail', async () => {
      await store.write(async (work) => {
        await work.insertInto('leases').values(lease('10.0.0.8', 1)).execute()
        await work.insertInto('leases').values(lease('10.0.0.9 \0!', 1)).execute()
      })
      const rows = await store.read
        .selectFrom('leases')
        .select('address')
        .where('address', 'in', ['10.0.0.8', '10.0.0.9 \0!'])
        .execute()
      assert.equal(rows.length, 2)
    })

    test('an upsert replaces, a second insert is a duplicate, counts of changed rows are told', async () => {
      const insert = (until: number) =>
        store.write((work) =>
          work
            .insertInto('leases')
            .values(lease('10.0.0.2', until))
            .onConflict((conflict) => conflict.column('address').doUpdateSet({ until }))
            .execute(),
        )
      await insert(1)
      await insert(2)
      const row = await store.read
        .selectFrom('leases')
        .select('until')
        .where('address', '=', '10.0.0.2')
        .executeTakeFirstOrThrow()
      assert.equal(row.until, 2)
      await assert.rejects(
        store.write((work) => work.insertInto('leases').values(lease('10.0.0.2', 3)).execute()),
        isDuplicate,
      )
      const changed = await store.write((work) =>
        work.updateTable('leases').set({ until: 9 }).where('address', '=', 'no').executeTakeFirst(),
      )
      assert.equal(changed.numUpdatedRows, 0n)
    })

    test('a transaction that throws leaves nothing', async () => {
      const failing = store.write(async (work) => {
        await work.insertInto('leases').values(lease('10.0.0.3', 1)).execute()
        throw new Error('changed my mind')
      })
      await assert.rejects(failing, /changed my mind/)
      const rows = await store.read
        .selectFrom('leases')
        .selectAll()
        .where('address', '=', '10.0.0.3')
        .execute()
      assert.deepEqual(rows, [])
    })

    test('who asks for commands above the highest number it has seen misses none', async () => {
      await using other = await openStore(place.location)
      const none = { approved_by: null, finished: null, progress: null, output: null }
      const give = (through: Store, id: string) =>
        through.write(async (work) => {
          const issue = await nextIssue(work, 1_000)
          const row = { id, node: id, command: 'rekey', arguments: '{}', by: 'ada', state: 'sent' }
          const rest = { ...none, created: 1, expires: 2, result: null, code: null, message: null }
          await work
            .insertInto('commands')
            .values({ ...row, ...rest, issue })
            .execute()
        })
      const given = Array.from({ length: 20 }, (_, index) => [`x${index}`, `y${index}`]).flat()
      const before = await newestIssue(store.read)
      const found: string[] = []
      let looked = before
      const look = async () => {
        const newest = await newestIssue(other.read)
        if (newest === looked) return
        found.push(...(await orderedSince(other.read, looked)))
        looked = newest
      }
      const giving = Promise.all(given.map((id, index) => give(index % 2 ? store : other, id)))
      let over = false
      const ended = giving.finally(() => {
        over = true
      })
      while (!over) {
        await look()
        await systemClock.sleep(1) // SQLite answers without giving anybody else a turn
      }
      await ended
      await look()
      assert.deepEqual([...new Set(found)].sort(), given.toSorted())
      const rows = await store.read.selectFrom('commands').select('issue').execute()
      assert.equal(new Set(rows.map(({ issue }) => issue)).size, rows.length, 'none is given twice')
    })

    test('writers that meet are serialised: no count and no entry of the chain is lost', async () => {
      await using other = await openStore(place.location)
      await store.write((work) => work.insertInto('leases').values(lease('sum', 0)).execute())
      const add = (through: Store) =>
        through.write(async (work) => {
          const { until } = await work
            .selectFrom('leases')
            .select('until')
            .where('address', '=', 'sum')
            .executeTakeFirstOrThrow()
          await work
            .updateTable('leases')
            .set({ until: until + 1 })
            .where('address', '=', 'sum')
            .execute()
        })
      const rounds = Array.from({ length: 20 }, (_, index) => index)
      await Promise.all(
        rounds.flatMap((index) => [
          add(store),
          add(other),
          recordAlone(store, systemClock, event(`a${index}`)),
          recordAlone(other, systemClock, event(`b${index}`)),
        ]),
      )
      const { until } = await store.read
        .selectFrom('leases')
        .select('until')
        .where('address', '=', 'sum')
        .executeTakeFirstOrThrow()
      assert.equal(until, 40)
      const verdict = await verifyAudit(store.read)
      assert.deepEqual([verdict.entries, verdict.intact], [40, true])
    })
  })
}

test('nobody but its owner can read the SQLite file, however open its directory is', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-store-'))
  try {
    await chmod(directory, 0o755)
    const path = join(directory, 'state.db')
    const modes = async () => {
      const found = ['', '-wal', '-shm'].map((end) => stat(`${path}${end}`))
      return (await Promise.all(found)).map(({ mode }) => mode & 0o777)
    }
    const keep = async () => {
      await using store = await openStore({ engine: 'sqlite', path })
      await recordAlone(store, systemClock, event('ada'))
      return await modes()
    }
    assert.deepEqual(await keep(), [0o600, 0o600, 0o600])
    await chmod(path, 0o644)
    assert.deepEqual(await keep(), [0o600, 0o600, 0o600], 'also one that an older version has made')
  } finally {
    await rm(directory, { recursive: true })
  }
})
