import assert from 'node:assert/strict'
import { cp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Secret, systemClock } from '@holdfast/base'
import type { Ask } from './api-client-fixture.ts'
import { verifyAudit } from './audit.ts'
import { expire, handover } from './ceremonies.ts'
import { claimed, depsOf, person, place, running } from './coordinator-fixture.ts'
import { type Postgres, startPostgres } from './local-postgresql.ts'
import { answerOver, startInstance, until } from './process-fixture.ts'
import { openStore } from './store.ts'
import { putUser } from './users.ts'

// Several coordinator processes on one real PostgreSQL, and what happens when one of them, or the
// primary itself, is killed. Acknowledged means: the client got 200.

const password = 'correct horse battery'
const people = ['alice', 'bob', 'carol', 'dave'].map(person)
const [alice, bob, carol, dave] = people
assert.ok(alice && bob && carol && dave)

/** Directories of two instances of one cluster on `server`; the second has joined the first. */
async function twoPlaces(server: Postgres, urls: readonly string[] = [server.url]) {
  const first = await place({ engine: 'postgresql', url: server.url })
  const second = await place()
  const file = join(first.directory, 'postgresql')
  await writeFile(file, urls.join('\n'), { mode: 0o600 })
  const words = (instance: string) => ['--postgresql-file', file, '--instance', instance]
  const joinFirst = async () => {
    for (const name of ['identity.pem', 'host.key', 'initialised'])
      await cp(join(first.directory, name), join(second.directory, name))
  }
  return {
    first,
    second,
    words,
    join: joinFirst,
    [Symbol.asyncDispose]: async () => {
      await first[Symbol.asyncDispose]()
      await second[Symbol.asyncDispose]()
    },
  }
}

async function signIn(ask: Ask): Promise<Record<string, string>> {
  const { cookie, body } = await ask('POST', '/v1/sessions', { user: 'root', password })
  return { cookie, 'x-csrf-token': String(body.csrf) }
}

test('shares are split over two instances, one is killed in the middle, and follows when it is back', async () => {
  await using server = await startPostgres()
  await using places = await twoPlaces(server)
  const made = await running(places.first.options, people, 3)
  // The change of holders was a while ago: its shares are no longer kept.
  const clock = { ...systemClock, now: () => Date.now() + 2 * handover }
  await expire({ ...depsOf(made), clock })
  await made[Symbol.asyncDispose]()
  await places.join()
  for (const { directory } of [places.first, places.second]) await rm(join(directory, 'host.key'))
  await using one = await startInstance(places.first.directory, places.words('one'))
  await using two = await startInstance(places.second.directory, places.words('two'))
  assert.equal(one.pin, two.pin)
  assert.equal((await two.ask('GET', '/v1/status')).body.reason, 'key_missing')
  const opened = await one.ask('POST', '/v1/ceremonies', { kind: 'recovery' })
  const id = String(opened.body.id)
  assert.equal((await answerOver(one.ask, id, dave)).status, 200)
  assert.equal((await answerOver(two.ask, id, bob)).status, 200)
  one.running.kill('SIGKILL')
  await one.running.ended
  const repeated = await answerOver(two.ask, id, dave)
  assert.equal((repeated.body.error as { code: string }).code, 'ceremony.answer_duplicate')
  assert.equal((await answerOver(two.ask, id, alice)).body.state, 'done')
  assert.equal((await two.ask('GET', '/v1/status')).body.state, 'running')
  await using again = await startInstance(places.first.directory, places.words('one'))
  await until(again.ask, '/v1/status', ({ state }) => state === 'running')
})

test('an instance that is killed under load loses nothing that was acknowledged', async () => {
  await using server = await startPostgres()
  await using places = await twoPlaces(server)
  await makeCluster(places)
  await using one = await startInstance(places.first.directory, places.words('one'))
  await using two = await startInstance(places.second.directory, places.words('two'))
  const admin = await signIn(one.ask)
  const acknowledged = new Set<string>()
  const load = async (name: string) => {
    let ask = name.startsWith('a') ? one.ask : two.ask
    for (let count = 0; count < 15; count += 1) {
      const label = `${name}-${count}`
      try {
        const reply = await ask('POST', '/v1/tokens', { label, scopes: ['admin'], days: 1 }, admin)
        assert.equal(reply.status, 200, JSON.stringify(reply.body))
        acknowledged.add(label)
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error
        ask = two.ask // what a load balancer does
      }
      if (acknowledged.size === 20) one.running.kill('SIGKILL')
    }
  }
  await Promise.all(['a1', 'a2', 'a3', 'b1', 'b2'].map(load))
  assert.equal(await one.running.ended, 137)
  assert.ok(acknowledged.size >= 70, `${acknowledged.size} were acknowledged`)
  await requireAll(two.ask, admin, acknowledged)
  await requireIntact(server.url)
})

test('the standby takes over from a killed primary with everything that was acknowledged', async () => {
  await using server = await startPostgres()
  await using standby = await server.standby()
  await using places = await twoPlaces(server, [server.url, standby.url])
  await makeCluster(places)
  await using one = await startInstance(places.first.directory, places.words('one'))
  const admin = await signIn(one.ask)
  const acknowledged = new Set<string>()
  // Once: whatever is answered after that finds it dead, and the process's number may be another's.
  let crashed: Promise<void> | undefined
  const load = async (name: string, most: number) => {
    for (let count = 0; count < most; count += 1) {
      const label = `${name}-${count}`
      const reply = await one.ask(
        'POST',
        '/v1/tokens',
        { label, scopes: ['admin'], days: 1 },
        admin,
      )
      if (reply.status === 200) acknowledged.add(label)
      else
        assert.equal((reply.body.error as { code: string }).code, 'coordinator.storage_unreachable')
      if (acknowledged.size === 20) crashed ??= server.crash()
      await crashed
    }
  }
  await Promise.all(['a', 'b', 'c'].map((name) => load(name, 20)))
  await until(one.ask, '/v1/status', ({ reason }) => reason === 'storage_unreachable')
  assert.equal((await one.ask('GET', '/livez')).status, 200)
  await standby.promote()
  await until(one.ask, '/v1/status', ({ state }) => state === 'ready')
  const before = acknowledged.size
  await load('after', 5)
  assert.equal(acknowledged.size, before + 5)
  await requireAll(one.ask, admin, acknowledged)
  await requireIntact(standby.url)
})

async function makeCluster(places: Awaited<ReturnType<typeof twoPlaces>>): Promise<void> {
  const made = await claimed(places.first.options)
  using secret = Secret.copy(password)
  await made.store.write((work) => putUser(work, 'root', ['admin'], secret))
  await made[Symbol.asyncDispose]()
  await places.join()
}

async function requireAll(
  ask: Ask,
  admin: Record<string, string>,
  acknowledged: ReadonlySet<string>,
): Promise<void> {
  const { tokens } = (await ask('GET', '/v1/tokens', undefined, admin)).body
  const present = new Set((tokens as { label: string }[]).map(({ label }) => label))
  assert.deepEqual(
    [...acknowledged].filter((label) => !present.has(label)),
    [],
  )
}

async function requireIntact(url: string): Promise<void> {
  await using store = await openStore({ engine: 'postgresql', url })
  assert.equal((await verifyAudit(store.read)).intact, true)
}
