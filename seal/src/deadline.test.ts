import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Secret } from '@holdfast/base'
import { afterRunning } from './deadline.ts'
import { createFetch } from './http.ts'
import { labPins, nul, sealText, withHeader } from './lab.ts'
import { open } from './open.ts'
import type { Pin } from './pin.ts'
import { createPins } from './pins.ts'

/** This process stands still, as one does whose machine is suspended. */
function standStill(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
}

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

test('a server is given the time that this machine stood still', async () => {
  const server = createServer((_request, response) => {
    standStill(1_500)
    response.end('{}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // it listens on TCP
  try {
    const fetch = createFetch({ connect: 1_000, total: 1_000 })
    const options = { method: 'GET', signal: new AbortController().signal } as const
    assert.equal((await fetch(`http://127.0.0.1:${port}/adv`, options)).body, '{}')
  } finally {
    server.close()
  }
})

test('so is a pin', async () => {
  const slow: Pin = {
    ...labPins.get('null'),
    name: 'slow',
    local: false,
    open: async () => {
      standStill(1_500)
      await goOn()
      return Secret.copy('hi')
    },
    inspect: () => ({ label: 'slow' }),
  }
  const pins = createPins({ extra: [slow] })
  const sealed = withHeader(await sealText(nul), (header) => ({
    ...header,
    clevis: { pin: 'slow', slow: {} },
  }))
  using opened = await open(pins, sealed, { timeout: 1_000 })
  assert.equal(opened.reveal().toString(), 'hi')
})
