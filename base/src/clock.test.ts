import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from './clock.ts'

test('the system clock sleeps, and an abort ends the sleep with its own reason', async () => {
  await systemClock.sleep(1)
  const stop = new AbortController()
  const sleeping = systemClock.sleep(3_600_000, stop.signal)
  stop.abort(new Error('enough'))
  await assert.rejects(sleeping, { message: 'enough' })
  await assert.rejects(systemClock.sleep(1, stop.signal), { message: 'enough' })
  assert.ok(Math.abs(systemClock.now() - Date.now()) < 60_000)
})
