import assert from 'node:assert/strict'
import { access, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { baseFault, isFault } from '@holdfast/base'
import type { Drill, Stage } from './drill.ts'
import { drillNamed, perform } from './runner.ts'

const command = { program: 'true', args: [] }
const [coordinator, agent] = [command, command]

function drill(run: (stage: Stage) => Promise<void>): Drill {
  return { name: 'practice', title: 'practice', summary: 'practice', run }
}

describe('running a drill', () => {
  let directory = ''
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'drills-'))
  })
  after(() => rm(directory, { recursive: true }))

  it('passes with its evidence in order, told as it happens', async () => {
    const told: string[] = []
    const result = await perform(
      drill(async ({ timeline }) => {
        timeline.note('first', { server: 1 })
        timeline.proves('second', true)
      }),
      { directory, command, coordinator, agent, onEvent: ({ step }) => told.push(step) },
    )
    assert.equal(result.passed, true)
    assert.equal(result.problem, undefined)
    assert.deepEqual(told, ['first', 'second'])
    assert.deepEqual(
      result.evidence.map(({ step, proven, server }) => ({ step, proven, server })),
      [
        { step: 'first', proven: undefined, server: 1 },
        { step: 'second', proven: true, server: undefined },
      ],
    )
  })

  it('fails on a claim that does not hold, and keeps what was seen', async () => {
    const result = await perform(
      drill(async ({ timeline }) => timeline.proves('it opens', false, { code: 2 })),
      { directory, command, coordinator, agent },
    )
    assert.equal(result.passed, false)
    assert.deepEqual(result.problem, { code: 'drills.check_failed', message: 'not so: it opens' })
    assert.equal(result.evidence[0]?.proven, false)
  })

  it('fails when something is not refused, or is refused for another reason', async () => {
    const wrong = () => Promise.reject(baseFault('base.locked', 'in use'))
    for (const action of [() => Promise.resolve(), wrong]) {
      const result = await perform(
        drill(async ({ timeline }) => {
          await timeline.refuses('it is gone', ['base.file_absent'], action)
        }),
        { directory, command, coordinator, agent },
      )
      assert.equal(result.problem?.code, 'drills.not_refused')
    }
  })

  it('cleans up in reverse order and removes the directory, also when the drill throws', async () => {
    const order: string[] = []
    let own = ''
    const result = await perform(
      drill(async ({ cleanup, directory: mine }) => {
        own = mine
        cleanup.defer(() => void order.push('first started'))
        cleanup.defer(() => void order.push('second started'))
        throw new Error('gave up')
      }),
      { directory, command, coordinator, agent },
    )
    assert.deepEqual(order, ['second started', 'first started'])
    assert.deepEqual(result.problem, { code: 'internal', message: 'gave up' })
    await assert.rejects(access(own))
  })

  it('ends a drill that hangs, aborts its signal, and says so', async () => {
    let aborted = false
    const result = await perform(
      drill(
        ({ signal }) =>
          new Promise(() => {
            signal.addEventListener('abort', () => {
              aborted = true
            })
          }),
      ),
      { directory, command, coordinator, agent, timeout: 50, grace: 50 },
    )
    assert.equal(aborted, true)
    assert.equal(result.problem?.code, 'drills.timed_out')
  })

  it('stops at the next step when it is interrupted, and what was just started is cleaned up', async () => {
    const stop = new AbortController()
    const seen: string[] = []
    const result = await perform(
      drill(async ({ timeline, cleanup }) => {
        timeline.note('a server is starting')
        stop.abort()
        await new Promise((resolve) => setImmediate(resolve))
        cleanup.defer(() => void seen.push('the server is stopped'))
        timeline.note('a server has started')
        seen.push('gone on')
      }),
      { directory, command, coordinator, agent, signal: stop.signal },
    )
    assert.deepEqual(seen, ['the server is stopped'])
    assert.equal(result.problem?.code, 'drills.interrupted')
    assert.deepEqual(
      result.evidence.map(({ step }) => step),
      ['a server is starting'],
    )
  })

  it('finds drills by name and points to the list otherwise', () => {
    const known = drill(async () => undefined)
    assert.equal(drillNamed([known], 'practice'), known)
    assert.throws(
      () => drillNamed([known], 'flood'),
      (error) =>
        isFault(error, 'drills.unknown') && error.hint === 'see them all: holdfast drill list',
    )
  })
})
