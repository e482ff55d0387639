import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault, systemClock } from '@holdfast/base'
import { sql } from 'kysely'
import { recordAlone } from './audit.ts'
import { Coordinator } from './coordinator.ts'
import { claimed, place } from './coordinator-fixture.ts'
import { startPostgres } from './local-postgresql.ts'
import { claimOver, codeOf, started } from './server-fixture.ts'
import { runService } from './service.ts'
import { isUnreachable, openStore, type Store } from './store.ts'

// What the store does when its engine cannot go on, and what the settings are that make it durable.

async function setting(store: Store, name: string): Promise<unknown> {
  const { rows } = await sql<Record<string, unknown>>`pragma ${sql.raw(name)}`.execute(store.read)
  return Object.values(rows[0] ?? {})[0]
}

test('a commit on SQLite is on the disk before it is acknowledged', async () => {
  await using here = await place()
  await using store = await openStore(here.options.store)
  assert.equal(await setting(store, 'journal_mode'), 'wal')
  assert.equal(await setting(store, 'synchronous'), 2, 'full: the log is synced at every commit')
  assert.equal(await setting(store, 'foreign_keys'), 1)
})

test('a damaged file is neither used nor taken for a new one', async () => {
  await using here = await place()
  await (await claimed(here.options))[Symbol.asyncDispose]()
  const path = join(here.directory, 'state.db')
  const bytes = await readFile(path)
  bytes.fill(0x5a, 0, 4096)
  await writeFile(path, bytes)
  await assert.rejects(Coordinator.start(here.options), {
    code: 'coordinator.storage_unreachable',
    message: /not a database/,
  })
  assert.deepEqual(await readFile(path), bytes)
  await assert.rejects(readFile(join(here.directory, 'claim-token')), { code: 'ENOENT' })
})

test('a full disk is told as the store that it is, and what was acknowledged stays', async () => {
  await using here = await started()
  await using running = await here.start()
  const { ask, coordinator } = running
  const admin = await claimOver(ask, await here.token())
  const { store } = coordinator
  const pages = Number(await setting(store, 'page_count'))
  await setting(store, `max_page_count = ${pages + 2}`)
  const labels: string[] = []
  let refused: string | undefined
  for (let made = 0; made < 200 && refused === undefined; made += 1) {
    const label = `${made}-${'x'.repeat(90)}`
    const reply = await ask('POST', '/v1/tokens', { label, scopes: ['admin'] }, admin)
    if (reply.status === 200) labels.push(label)
    else refused = codeOf(reply)
  }
  assert.equal(refused, 'coordinator.storage_unreachable')
  await setting(store, 'max_page_count = 1000000')
  const { body } = await ask('GET', '/v1/tokens', undefined, admin)
  const present = (body.tokens as { label: string }[]).map(({ label }) => label)
  assert.deepEqual(
    labels.filter((label) => !present.includes(label)),
    [],
  )
  assert.equal(
    (await ask('POST', '/v1/tokens', { label: 'again', scopes: ['admin'] }, admin)).status,
    200,
  )
})

test('one directory has one process: a second one is refused before it touches anything', async () => {
  await using here = await place()
  const stop = new AbortController()
  const options = {
    directory: here.directory,
    store: { engine: 'sqlite', path: join(here.directory, 'state.db') } as const,
    host: '127.0.0.1',
    port: 0,
    instance: 'one',
    onResume: () => undefined,
  }
  const { promise: ready, resolve } = Promise.withResolvers<void>()
  const first = runService(options, async () => resolve(), stop.signal)
  await ready
  await assert.rejects(
    runService({ ...options, instance: 'two' }, async () => undefined, stop.signal),
    (error) => isFault(error, 'base.locked'),
  )
  stop.abort()
  await first
  const again = new AbortController()
  await runService(options, async () => again.abort(), again.signal)
})

test('a PostgreSQL that hangs is unreachable after its time, and is used again when it goes on', async () => {
  await using server = await startPostgres()
  await using store = await openStore({ engine: 'postgresql', url: server.url })
  const event = { actor: 'test', action: 'test.done', subject: 'x', outcome: 'done' } as const
  await recordAlone(store, systemClock, event)
  const hanging = await server.hang()
  const attempts = ['read', 'write'].map(async (kind) => {
    try {
      if (kind === 'write') await recordAlone(store, systemClock, event)
      else await store.read.selectFrom('audit').select('sequence').execute()
      return 'done'
    } catch (error) {
      return isUnreachable(error) ? 'unreachable' : String(error)
    }
  })
  assert.deepEqual(await Promise.all(attempts), ['unreachable', 'unreachable'])
  hanging.goOn()
  await recordAlone(store, systemClock, event)
  const rows = await store.read.selectFrom('audit').select('sequence').execute()
  assert.ok(rows.length >= 2)
})
