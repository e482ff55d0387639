import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import type { Call } from './command-handler.ts'
import { type RebootDeps, rebootHandler } from './reboot.ts'

interface Bench {
  deps: RebootDeps
  happened: string[]
  boot(id: string): Promise<void>
  call(given?: { force: boolean }, signal?: AbortSignal): Call<'reboot'>
}

async function bench(over: Partial<RebootDeps> = {}): Promise<Bench & AsyncDisposable> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-reboot-'))
  const happened: string[] = []
  const note = (what: string) => async () => {
    happened.push(what)
  }
  const bootIdPath = join(directory, 'boot-id')
  const boot = (id: string) => writeFile(bootIdPath, `${id}\n`)
  await boot('first')
  return {
    happened,
    boot,
    deps: {
      directory,
      bootIdPath,
      reboot: note('reboot'),
      close: note('close'),
      reopen: note('reopen'),
      clock: systemClock,
      patience: 20,
      ...over,
    },
    call: (given = { force: false }, signal = new AbortController().signal) => ({
      id: 'order',
      by: 'test',
      given,
      again: false,
      signal,
      progress: () => undefined,
      output: async (text) => {
        happened.push(text.includes('going down') ? 'told' : text)
      },
    }),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  }
}

test('the vault closes, the coordinator hears, the machine goes; a new boot id is the answer', async () => {
  await using lab = await bench()
  const stop = new AbortController()
  lab.deps.reboot = async () => {
    lab.happened.push('reboot')
    stop.abort() // the machine takes the agent down
  }
  await assert.rejects(rebootHandler(lab.deps).run(lab.call(undefined, stop.signal)))
  assert.deepEqual(lab.happened, ['close', 'told', 'reboot'])
  await lab.boot('second')
  const after = await rebootHandler(lab.deps).run({ ...lab.call(), again: true })
  assert.deepEqual(after, { before: 'first', after: 'second' })
  assert.deepEqual(lab.happened, ['close', 'told', 'reboot'], 'it goes down only once')
})

test('an agent that was started again without a reboot goes on with it', async () => {
  await using lab = await bench()
  const stop = new AbortController()
  stop.abort()
  await assert.rejects(rebootHandler(lab.deps).run(lab.call(undefined, stop.signal)))
  await assert.rejects(rebootHandler(lab.deps).run({ ...lab.call(), again: true }), {
    code: 'agent.reboot_failed',
  })
  assert.equal(lab.happened.filter((what) => what === 'reboot').length, 2)
})

test('a machine that stays up, or has no way down, keeps its vault', async () => {
  await using lab = await bench()
  await assert.rejects(rebootHandler(lab.deps).run(lab.call()), { code: 'agent.reboot_failed' })
  assert.deepEqual(lab.happened, ['close', 'told', 'reboot', 'reopen'])
  await using none = await bench({ reboot: undefined })
  await assert.rejects(rebootHandler(none.deps).run(none.call()), {
    code: 'agent.reboot_unavailable',
  })
  assert.deepEqual(none.happened, [])
})

test('a vault that something holds open is left alone, unless forced', async () => {
  await using lab = await bench()
  lab.deps.close = async () => {
    throw new Error('target is busy')
  }
  await assert.rejects(rebootHandler(lab.deps).run(lab.call()), {
    code: 'agent.reboot_failed',
    message: /target is busy/,
  })
  assert.deepEqual(lab.happened, ['reopen'])
  await assert.rejects(rebootHandler(lab.deps).run(lab.call({ force: true })))
  assert.deepEqual(lab.happened.slice(1), ['told', 'reboot', 'reopen'])
})
