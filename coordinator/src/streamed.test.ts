import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import { streamed } from './streamed.ts'

/** Parts that tell whether they are still held. */
function parts(fails = false) {
  const seen = { made: 0, released: false }
  const made = (async function* () {
    try {
      for (;;) {
        seen.made += 1
        if (fails && seen.made === 3) throw new Error('the store is gone')
        yield `part ${seen.made}\n`
      }
    } finally {
      seen.released = true
    }
  })()
  return { seen, made }
}

/** A clock whose one sleep ends when the test says so. */
function stalling() {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { clock: { ...systemClock, sleep: () => promise }, pass: resolve }
}

const soon = () => new Promise((resolve) => setImmediate(resolve))

test('parts are made as they are fetched, and released when nobody is there any more', async () => {
  const { seen, made } = parts()
  const reader = (await streamed(made, systemClock)).getReader()
  const { value } = await reader.read()
  assert.equal(new TextDecoder().decode(value), 'part 1\n')
  await soon()
  assert.ok(seen.made <= 3, `${seen.made} parts were made for one that was fetched`)
  await reader.cancel()
  assert.equal(seen.released, true)
})

test('whoever stops fetching does not hold them for ever', async () => {
  const { seen, made } = parts()
  const { clock, pass } = stalling()
  const reader = (await streamed(made, clock)).getReader()
  await reader.read()
  await soon()
  assert.equal(seen.released, false)
  pass()
  await soon()
  assert.equal(seen.released, true)
  await assert.rejects(async () => {
    for (let turn = 0; turn < 3; turn += 1) await reader.read()
  }, /nobody fetches/)
})

test('nor does whoever fetches a little now and then', async () => {
  const { seen, made } = parts()
  let now = 0
  const told: unknown[] = []
  const report = (error: unknown) => told.push(error)
  const reader = (await streamed(made, { ...systemClock, now: () => now }, report)).getReader()
  for (; now < 4 * 3_600_000; now += 30_000) await reader.read()
  assert.equal(seen.released, false)
  now += 30_000
  await assert.rejects(async () => {
    for (let turn = 0; turn < 3; turn += 1) await reader.read()
  }, /more than four hours/)
  assert.deepEqual([seen.released, told.length], [true, 1])
})

test('what fails at once is thrown, what fails later breaks off and is told', async () => {
  const broken = (async function* (): AsyncGenerator<string> {
    yield* []
    throw new Error('no store')
  })()
  await assert.rejects(streamed(broken, systemClock), /no store/)
  const { seen, made } = parts(true)
  const told: unknown[] = []
  const reader = (await streamed(made, systemClock, (error) => told.push(error))).getReader()
  await assert.rejects(async () => {
    for (let turn = 0; turn < 5; turn += 1) await reader.read()
  }, /the store is gone/)
  assert.deepEqual([seen.released, told.length], [true, 1])
})

test('who goes away while the next part is being made is no failure', async () => {
  const asked = Promise.withResolvers<void>()
  const slow = Promise.withResolvers<string>()
  const made = (async function* () {
    yield 'part 1\n'
    asked.resolve()
    yield await slow.promise
  })()
  const told: unknown[] = []
  const reader = (await streamed(made, systemClock, (error) => told.push(error))).getReader()
  await reader.read()
  const reading = reader.read()
  await asked.promise
  const gone = reader.cancel()
  slow.resolve('part 2\n')
  await gone
  assert.equal((await reading).done, true)
  assert.deepEqual([told, (await made.next()).done], [[], true])
})
