import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startDuties } from './agents-duties.ts'
import { until, world } from './agents-fixture.ts'

const day = 24 * 60 * 60_000

test('what has ended 90 days ago is forgotten, and nothing that goes on or is younger', async () => {
  await using here = await world()
  const { store, clock } = here
  const ages = { old: 100 * day, young: 80 * day }
  await store.write(async (work) => {
    for (const [age, milliseconds] of Object.entries(ages)) {
      const at = clock.now() - milliseconds
      for (const state of ['failed', 'enrolled', 'proving']) {
        const enrolment = { invite: '', address: '', name: '', genesis: 0, by: '', expires: at }
        const id = `${age} ${state}`
        // One that goes on has its time yet.
        const expires = state === 'proving' ? clock.now() + day : at
        const row = { ...enrolment, id, state, created: at, expires }
        await work.insertInto('enrolments').values(row).execute()
      }
      for (const state of ['done', 'open', 'proof']) {
        const id = `${age} ${state}`
        const plain = { kind: 'recovery', digest: '', nonce: '', generation: 1, threshold: 1 }
        const row = { ...plain, id, state, detail: '{}', created: at, expires: at }
        await work.insertInto('ceremonies').values(row).execute()
        const answer = { ceremony: id, holder: 'alice', at, code: 'accepted', sealed: '' }
        await work.insertInto('answers').values(answer).execute()
      }
    }
  })
  const failures: unknown[] = []
  const onError = (error: unknown) => failures.push(error)
  const { agents } = here.first
  await using _ = startDuties({ agents, store, clock, onError })
  const ids = async (table: 'enrolments' | 'ceremonies') =>
    (await store.read.selectFrom(table).select('id').orderBy('id').execute()).map(({ id }) => id)
  await until(async () => (await ids('enrolments')).length === 4, 'old ones are forgotten')
  const young = ['young enrolled', 'young failed', 'young proving']
  assert.deepEqual(await ids('enrolments'), ['old proving', ...young])
  const kept = ['old open', 'young done', 'young open', 'young proof']
  assert.deepEqual(
    (await ids('ceremonies')).filter((id) => / (done|open|proof)$/.test(id)),
    kept,
  )
  const answers = await store.read.selectFrom('answers').select('ceremony').execute()
  assert.deepEqual(
    answers.map(({ ceremony }) => ceremony).filter((id) => id.startsWith('old')),
    ['old open'],
  )
  assert.deepEqual(failures, [])
})
