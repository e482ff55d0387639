import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createPins, parsePolicy, sealFault } from '@holdfast/seal'
import { reachablePart } from './reachable.ts'

test('what cannot be reached is listed as the policy has it, whichever failed first', async () => {
  const urls = ['http://a.example', 'http://b.example', 'http://c.example']
  const last = Promise.withResolvers<void>()
  const pins = createPins({
    fetch: async (url) => {
      if (url.startsWith('http://c.example')) last.resolve()
      await last.promise
      // The first to be asked is the last to fail.
      const turns = urls.length - urls.findIndex((each) => url.startsWith(each))
      for (let turn = 0; turn < turns; turn += 1) await new Promise((done) => setImmediate(done))
      throw sealFault('seal.server_unreachable', url)
    },
  })
  const tang = urls.map((url) => ({ url, thp: 'x'.repeat(43) }))
  const policy = parsePolicy('sss', { t: 1, pins: { tang, null: [{}] } })
  const { missing } = await reachablePart(pins, policy, {})
  assert.deepEqual(missing, urls)
  const alone = parsePolicy('sss', { t: 1, pins: { tang } })
  await assert.rejects(reachablePart(pins, alone, {}), { message: /a\.example/ })
})
