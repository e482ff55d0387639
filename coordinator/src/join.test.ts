import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Clock, systemClock } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { Coordinator } from './coordinator.ts'
import { claimed, place } from './coordinator-fixture.ts'
import { filePin } from './file-pin.ts'
import { admitInstance, joinCluster, prepareJoin } from './join.ts'
import { startPostgres } from './local-postgresql.ts'

// A second instance gets what it needs by a one-time token, over a real PostgreSQL.

const pem = () =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .publicKey.export({ type: 'spki', format: 'pem' })
    .toString()

function later(by: number): Clock {
  return { ...systemClock, now: () => Date.now() + by }
}

test('with the token another host becomes an instance, opens by the shared host key, and rotates', async () => {
  await using server = await startPostgres()
  const location = { engine: 'postgresql', url: server.url } as const
  await using here = await place(location)
  await using first = await claimed(here.options)
  const { digest: pinned } = first.identity
  const other = await mkdtemp(join(tmpdir(), 'holdfast-joined-'))
  try {
    const { token } = await prepareJoin(here.directory, systemClock)
    const ask = (key: string) => admitInstance(first, { token, key, name: 'two' })
    const { cluster } = await joinCluster({ directory: other, pinned, ask })
    assert.equal(cluster, first.header?.cluster)
    await assert.rejects(ask(pem()), { code: 'coordinator.join_refused' }, 'it works once')
    // The first host, with its files, is somewhere else.
    const key = await readFile(join(here.directory, 'host.key'))
    await rm(join(here.directory, 'host.key'))
    const pins = createPins({ extra: [filePin(other)] })
    await using second = await Coordinator.start({ directory: other, store: location, pins })
    assert.deepEqual([second.state, second.identity.digest], ['ready', pinned])
    const { digest } = await second.prepareGeneration(undefined)
    assert.equal(await second.activateGeneration(digest, async () => undefined), 2)
    await writeFile(join(here.directory, 'host.key'), key, { mode: 0o400 })
    await first.refresh()
    assert.deepEqual([first.state, first.header?.generation], ['ready', 2])
    const told = await first.store.read
      .selectFrom('audit')
      .select(['subject', 'outcome'])
      .where('action', '=', 'instance.join')
      .orderBy('sequence')
      .execute()
    assert.deepEqual(told, [{ subject: 'two', outcome: 'done' }], 'guesses do not fill the log')
  } finally {
    await rm(other, { recursive: true })
  }
})

test('no token, a wrong one, an old one, a useless key: nothing is handed over', async () => {
  await using server = await startPostgres()
  await using here = await place({ engine: 'postgresql', url: server.url })
  await using coordinator = await claimed(here.options)
  const refused = { code: 'coordinator.join_refused' }
  const ask = (token: string, key = pem()) =>
    admitInstance(coordinator, { token, key, name: 'two' })
  await assert.rejects(ask(''), refused)
  const { token } = await prepareJoin(here.directory, systemClock)
  await assert.rejects(ask(`${token.slice(0, -1)}_`), refused)
  const rsa = generateKeyPairSync('rsa', { modulusLength: 3072 }).publicKey
  await assert.rejects(ask(token, `${rsa.export({ type: 'spki', format: 'pem' })}`), refused)
  await ask(token)
  const old = await prepareJoin(here.directory, later(-11 * 60_000))
  await assert.rejects(ask(old.token), refused)
  const raced = await prepareJoin(here.directory, systemClock)
  const both = await Promise.allSettled([ask(raced.token), ask(raced.token)])
  assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
})

test('a directory that holds something else is left alone, and another identity is not believed', async () => {
  await using server = await startPostgres()
  await using here = await place({ engine: 'postgresql', url: server.url })
  await using coordinator = await claimed(here.options)
  const { digest: pinned } = coordinator.identity
  const asking = async () => {
    const { token } = await prepareJoin(here.directory, systemClock)
    return (key: string) => admitInstance(coordinator, { token, key, name: 'two' })
  }
  await using used = await place()
  await writeFile(join(used.directory, 'state.db'), '')
  await assert.rejects(joinCluster({ directory: used.directory, pinned, ask: await asking() }), {
    code: 'coordinator.not_empty',
  })
  await using fresh = await place()
  const foreign = { directory: fresh.directory, pinned: 'A'.repeat(43), ask: await asking() }
  await assert.rejects(joinCluster(foreign), { code: 'coordinator.join_refused' })
  // Interrupted after the marker: the same join again goes on.
  const { directory } = fresh
  await writeFile(join(directory, 'initialised'), `${coordinator.header?.cluster}\n`)
  await joinCluster({ directory, pinned, ask: await asking() })
  await joinCluster({ directory, pinned, ask: await asking() })
  await writeFile(join(directory, 'initialised'), `${'B'.repeat(22)}\n`)
  await assert.rejects(joinCluster({ directory, pinned, ask: await asking() }), {
    code: 'coordinator.not_empty',
  })
})

test('SQLite serves one instance, and a directory of no cluster makes no token', async () => {
  await using here = await place()
  await using coordinator = await claimed(here.options)
  const { token } = await prepareJoin(here.directory, systemClock)
  await assert.rejects(admitInstance(coordinator, { token, key: pem(), name: 'two' }), {
    code: 'coordinator.join_refused',
    message: /SQLite/,
  })
  await using empty = await place()
  await assert.rejects(prepareJoin(empty.directory, systemClock), {
    code: 'coordinator.storage_missing',
  })
})
