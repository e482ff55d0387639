import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { type RunningProgram, startProgram } from '@holdfast/base'
import { ManagedProcess } from './managed-process.ts'

/** What `launch` says is its program. */
function managed(launch: () => Promise<RunningProgram>): ManagedProcess {
  return new (class extends ManagedProcess {
    protected launch(): Promise<RunningProgram> {
      return launch()
    }
  })()
}

/** A program that runs until it is ended, and every process of it that was started. */
function idler() {
  const started: RunningProgram[] = []
  const idle = managed(async () => {
    const words = ['-e', 'console.log("ready"); setInterval(() => {}, 1e6)']
    const { running } = await startProgram(process.execPath, words, (line) => line === 'ready')
    started.push(running)
    return running
  })
  return { idle, started }
}

test('whoever starts it at the same time gets one process', async () => {
  const { idle, started } = idler()
  await using _ = idle
  await Promise.all([idle.start(), idle.start()])
  await idle.start()
  assert.equal(started.length, 1)
  assert.equal(idle.running, started[0])
})

test('an end that is ordered during the start ends the process that comes of it', async () => {
  const { idle, started } = idler()
  const starting = idle.start()
  await idle.kill()
  await starting
  assert.equal(idle.running, undefined)
  await started[0]?.ended
  await idle.start()
  assert.equal(started.length, 2)
  await idle.stop()
  await started[1]?.ended
})

test('a start that fails is told to whoever started it, and another one may follow', async () => {
  let tries = 0
  const failing = managed(async () => {
    tries += 1
    throw new Error('not now')
  })
  await assert.rejects(failing.start(), /not now/)
  await failing.stop()
  await assert.rejects(failing.start(), /not now/)
  assert.equal(tries, 2)
})

test('while it is held still nothing of it runs, and afterwards it goes on', async () => {
  const { idle } = idler()
  await using _ = idle
  await idle.start()
  const state = async () => /\) (\w) /.exec(await readFile(`/proc/${idle.pid}/stat`, 'utf8'))?.[1]
  const until = async (wanted: (now: string | undefined) => boolean) => {
    for (let looks = 0; looks < 10_000; looks += 1) if (wanted(await state())) return true
    return false
  }
  assert.equal(await idle.whileStill(state), 'T') // proc(5): stopped by a signal
  assert.ok(await until((now) => now !== 'T'))
  await assert.rejects(
    idle.whileStill(() => Promise.reject(new Error('no'))),
    /no/,
  )
  assert.ok(await until((now) => now !== 'T'))
})
