import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { afterRunning } from './deadline.ts'
import { standStill } from './stand-still-fixture.ts'

/** Lets timers that are due come, and then whatever has arrived. */
async function goOn(): Promise<void> {
  await turn()
  await turn()
}

test('a deadline comes once, and not when it was called off', async (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] })
  const seen: string[] = []
  for (const [name, milliseconds] of Object.entries({ soon: 5, later: 700, late: 60_000 }))
    afterRunning(milliseconds, () => seen.push(name))
  afterRunning(700, () => seen.push('never'))[Symbol.dispose]()
  const after = (milliseconds: number) => {
    context.mock.timers.tick(milliseconds)
    return seen.join(' ')
  }
  assert.equal(after(4), '')
  assert.equal(after(1), 'soon')
  assert.equal(after(694), 'soon')
  assert.equal(after(1), 'soon later')
  assert.equal(after(59_299), 'soon later')
  assert.equal(after(1), 'soon later late')
  assert.equal(after(200_000), 'soon later late')
})

test('time in which nothing ran is not time in which nobody answered', async () => {
  let over = false
  using _deadline = afterRunning(600_000, () => {
    over = true
  })
  using _short = afterRunning(1_000, () => {
    over = true
  })
  standStill(1_500)
  await goOn()
  assert.equal(over, false)
})
