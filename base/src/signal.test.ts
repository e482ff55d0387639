import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { signalProcess } from './signal.ts'

test('a process is signalled; one that has ended needs none', async () => {
  const child = spawn('sleep', ['600'])
  const { pid } = child
  assert.ok(pid !== undefined)
  const ended = once(child, 'exit')
  signalProcess(pid, 'SIGTERM')
  assert.deepEqual(await ended, [null, 'SIGTERM'])
  signalProcess(pid, 'SIGTERM')
  assert.throws(() => signalProcess(process.pid, 'SIGNONE' as NodeJS.Signals), /Unknown signal/)
})
