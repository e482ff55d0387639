import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import type { Selectable } from 'kysely'
import { type AuditEvent, recordAlone, repairTail, verifyAudit, verifyChain } from './audit.ts'
import { readSinkFile, startAuditExport } from './audit-sink.ts'
import { backupTables } from './backup-format.ts'
import { claimed, place } from './coordinator-fixture.ts'
import { passing } from './dismissal.ts'
import { claimOver, started } from './server-fixture.ts'
import { openStore, type Store } from './store.ts'
import type { AuditTable } from './tables.ts'

const event: AuditEvent = { actor: 'test', action: 'test.done', subject: 'x', outcome: 'done' }

async function filled(count: number) {
  const here = await place()
  const store = await openStore(here.options.store)
  for (let done = 0; done < count; done += 1) await recordAlone(store, systemClock, event)
  return {
    store,
    ...here,
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]()
      await here[Symbol.asyncDispose]()
    },
  }
}

const alter = (store: Store, sequence: number) =>
  store.write((work) =>
    work.updateTable('audit').set({ subject: 'y' }).where('sequence', '=', sequence).execute(),
  )

test('a log longer than one page is followed from end to end', async () => {
  await using here = await filled(1500)
  assert.deepEqual(await verifyAudit(here.store.read), { entries: 1500, intact: true, repairs: 0 })
  await alter(here.store, 1234)
  const broken = await verifyAudit(here.store.read)
  assert.deepEqual([broken.intact, broken.firstBroken, broken.entries], [false, 1234, 1233])
})

test('a torn tail is cut by an entry that says so; a break further up stays as evidence', async () => {
  await using here = await filled(40)
  await alter(here.store, 38)
  assert.equal(await repairTail(here.store, systemClock), 3)
  assert.deepEqual(await verifyAudit(here.store.read), { entries: 38, intact: true, repairs: 1 })
  const last = await here.store.read
    .selectFrom('audit')
    .selectAll()
    .where('sequence', '=', 38)
    .executeTakeFirstOrThrow()
  const { removed, hashes } = JSON.parse(last.data)
  assert.deepEqual([last.action, removed, hashes.length], ['audit.repair', 3, 3])
  await alter(here.store, 2)
  assert.equal(await repairTail(here.store, systemClock), 0)
  assert.equal((await verifyAudit(here.store.read)).firstBroken, 2)
})

test('two instances that start on a torn log repair it once, and cut nothing that came since', async () => {
  await using here = await filled(40)
  await alter(here.store, 38)
  // The second one has looked as well, and comes to its transaction when the first one is through.
  const late: Store = {
    ...here.store,
    write: async (work) => {
      await repairTail(here.store, systemClock)
      await recordAlone(here.store, systemClock, event)
      return await here.store.write(work)
    },
  }
  assert.equal(await repairTail(late, systemClock), 0)
  assert.deepEqual(await verifyAudit(here.store.read), { entries: 39, intact: true, repairs: 1 })
})

test('sinks get what stands in the place of a tail that was cut', async () => {
  await using here = await filled(40)
  const sink = { name: 'https://sink.example.com/', position: 40 }
  await here.store.write((work) => work.insertInto('sinks').values(sink).execute())
  await alter(here.store, 38)
  await repairTail(here.store, systemClock)
  const { position } = await here.store.read
    .selectFrom('sinks')
    .selectAll()
    .executeTakeFirstOrThrow()
  assert.equal(position, 37)
})

test('no text that somebody sends breaks the chain, here or on PostgreSQL', async () => {
  await using here = await filled(1)
  const texts = ['half \ud83d', 'zero \0 byte', `${'x'.repeat(199)}\u{1f600}`]
  for (const text of texts)
    await recordAlone(here.store, systemClock, { ...event, actor: text, subject: text })
  assert.equal((await verifyAudit(here.store.read)).intact, true)
  const rows = await here.store.read.selectFrom('audit').selectAll().execute()
  assert.equal(
    rows.some(({ actor, subject }) => `${actor}${subject}`.includes('\0')),
    false,
  )
})

interface Sink {
  url: string
  lines: Selectable<AuditTable>[]
  /** What it does with the next requests. */
  mood: 'takes' | 'hangs' | 'refuses'
  authorizations: Set<string | undefined>
  close(): Promise<void>
}

async function sinkServer(): Promise<Sink> {
  const sockets = new Set<Socket>()
  const server: Server = createServer(async (request, response) => {
    let text = ''
    for await (const chunk of request) text += chunk
    if (sink.mood === 'hangs') return
    if (sink.mood === 'refuses') return void response.writeHead(503).end()
    sink.authorizations.add(request.headers.authorization)
    sink.lines.push(
      ...text
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    )
    response.writeHead(204).end()
  })
  server.on('connection', (socket) => sockets.add(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo // a listening TCP server has one
  const sink: Sink = {
    url: `http://127.0.0.1:${port}/log`,
    lines: [],
    mood: 'takes',
    authorizations: new Set(),
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
  return sink
}

async function until(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  for (let tried = 0; tried < 6000; tried += 1) {
    if (await check()) return
    await systemClock.sleep(10)
  }
  throw new Error(`never: ${what}`)
}

test('a sink gets every entry in order, whatever it does in between, and nothing twice after a restart', async () => {
  await using here = await filled(450)
  const sink = await sinkServer()
  const options = {
    ...{ store: here.store, clock: systemClock, patience: 6_000, interval: 5 },
    place: { url: `${sink.url}?key=1`, authorization: 'Bearer one' },
  }
  try {
    const first = startAuditExport(options)
    await until('450 entries', () => sink.lines.length === 450)
    assert.equal(await first.alarm(), undefined)
    for (const mood of ['hangs', 'refuses'] as const) {
      sink.mood = mood
      await recordAlone(here.store, systemClock, event)
      await until('an alarm', async () => (await first.alarm()) !== undefined)
      const told = await first.alarm()
      assert.match(String(told), new RegExp(`the audit sink ${sink.url} takes nothing, 1 entries`))
      sink.mood = 'takes'
      await until('no alarm', async () => (await first.alarm()) === undefined)
    }
    await first[Symbol.asyncDispose]()
    await using _second = startAuditExport(options)
    await recordAlone(here.store, systemClock, event)
    await until('the last entry', () => sink.lines.at(-1)?.sequence === 453)
    assert.equal(sink.lines.length, 453)
    assert.deepEqual(verifyChain(sink.lines), { entries: 453, intact: true, repairs: 0 })
    assert.deepEqual([...sink.authorizations], ['Bearer one'])
  } finally {
    await sink.close()
  }
})

test('a dead sink hangs nothing: the API answers, the status tells, and it stops at once', async () => {
  await using here = await started()
  const sink = await sinkServer()
  sink.mood = 'refuses'
  try {
    await using running = await here.start({ sink: { url: sink.url } })
    const { ask } = running
    const admin = await claimOver(ask, await here.token())
    let alarms: unknown[] = []
    await until('the status tells', async () => {
      const { body } = await ask('GET', '/v1/status')
      alarms = body.alarms as unknown[]
      return alarms.some((alarm) => String(alarm).includes('takes nothing'))
    })
    assert.match(alarms.join(), /status 503/)
    sink.mood = 'hangs'
    for (const label of ['a', 'b', 'c'])
      assert.equal(
        (await ask('POST', '/v1/tokens', { label, scopes: ['admin'] }, admin)).status,
        200,
      )
    await running.stop()
  } finally {
    await sink.close()
  }
})

test('a sink is described by a strict file', async () => {
  await using here = await place()
  const path = `${here.directory}/sink.json`
  const read = async (value: unknown) => {
    await writeFile(path, JSON.stringify(value))
    return await readSinkFile(path)
  }
  const url = 'https://log.example.com/holdfast'
  assert.deepEqual(await read({ url, authorization: 'Bearer x' }), {
    url,
    authorization: 'Bearer x',
  })
  for (const wrong of [{}, { url: 'ftp://x' }, { url, token: 'x' }, { url, identity: 'short' }])
    await assert.rejects(read(wrong), { code: 'coordinator.sink_invalid' })
})

test('every table is either in a backup or known to be of its moment', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  const tables = await coordinator.store.read.introspection.getTables()
  // How far a sink has come belongs to the audit log of this very store.
  const known = new Set<string>([...backupTables, ...passing, 'sinks'])
  assert.deepEqual(
    tables.map(({ name }) => name).filter((name) => !known.has(name)),
    [],
  )
})
