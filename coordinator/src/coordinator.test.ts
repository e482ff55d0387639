import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createPins } from '@holdfast/seal'
import { Coordinator } from './coordinator.ts'
import { filePin } from './file-pin.ts'

async function place() {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-coordinator-'))
  const options = {
    directory,
    store: { engine: 'sqlite', path: join(directory, 'state.db') } as const,
    pins: createPins({ extra: [filePin()] }),
  }
  return { directory, options, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) }
}

const nothing = async () => undefined

test('a new coordinator is claimed once, with the token from its own disk', async () => {
  await using here = await place()
  await using coordinator = await Coordinator.start(here.options)
  assert.equal(coordinator.reason, 'claim_needed')
  await assert.rejects(coordinator.claim('guess', 'fleet', nothing), {
    code: 'coordinator.claim_refused',
  })
  const token = await readFile(join(here.directory, 'claim-token'), 'utf8')
  await coordinator.claim(token, 'fleet', nothing)
  assert.deepEqual([coordinator.state, coordinator.reason], ['ready', 'manifest_needed'])
  await assert.rejects(coordinator.claim(token, 'fleet', nothing), {
    code: 'coordinator.not_in_this_state',
  })
})

test('it opens by itself after a restart, and keeps its identity', async () => {
  await using here = await place()
  const first = await Coordinator.start(here.options)
  await first.claim(await readFile(join(here.directory, 'claim-token'), 'utf8'), 'fleet', nothing)
  const pin = first.identity.digest
  await first[Symbol.asyncDispose]()
  await using second = await Coordinator.start(here.options)
  assert.deepEqual([second.state, second.identity.digest], ['ready', pin])
  assert.match((await second.secret('authority-key')).reveal().toString(), /PRIVATE KEY/)
})

test('without its host key it is sealed, and without its database it is not fresh', async () => {
  await using here = await place()
  const first = await Coordinator.start(here.options)
  await first.claim(await readFile(join(here.directory, 'claim-token'), 'utf8'), 'fleet', nothing)
  await first[Symbol.asyncDispose]()
  await rm(join(here.directory, 'host.key'))
  const sealed = await Coordinator.start(here.options)
  assert.deepEqual([sealed.state, sealed.reason], ['recovery', 'key_missing'])
  assert.equal(sealed.header?.name, 'fleet')
  await sealed[Symbol.asyncDispose]()
  for (const name of ['state.db', 'state.db-wal', 'state.db-shm'])
    await rm(join(here.directory, name), { force: true })
  await using empty = await Coordinator.start(here.options)
  assert.deepEqual([empty.state, empty.reason], ['recovery', 'storage_missing'])
})

test('a new generation is prepared beside the old one and becomes current at once', async () => {
  await using here = await place()
  await using coordinator = await Coordinator.start(here.options)
  await coordinator.claim(
    await readFile(join(here.directory, 'claim-token'), 'utf8'),
    'fleet',
    nothing,
  )
  const { digest } = await coordinator.prepareGeneration(undefined)
  assert.equal(coordinator.header?.generation, 1)
  assert.equal(await coordinator.activateGeneration(digest, nothing), 2)
  assert.match((await coordinator.secret('command-key')).reveal().toString(), /PRIVATE KEY/)
  const ways = await coordinator.store.read
    .selectFrom('ways')
    .select(['generation', 'state'])
    .execute()
  assert.deepEqual(
    ways.map((way) => ({ ...way })),
    [{ generation: 2, state: 'active' }],
  )
})
