import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Secret } from '@holdfast/base'
import { standStill } from '@holdfast/base/stand-still-fixture'
import { createFetch } from './http.ts'
import { labPins, nul, sealText, withHeader } from './lab.ts'
import { open } from './open.ts'
import type { Pin } from './pin.ts'
import { createPins } from './pins.ts'

/** Lets timers that are due come, and then whatever has arrived. */
async function goOn(): Promise<void> {
  await turn()
  await turn()
}

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
