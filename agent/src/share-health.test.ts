import assert from 'node:assert/strict'
import { test } from 'node:test'
import { standStill } from '@holdfast/base/stand-still-fixture'
import { publicPem } from './identity.ts'
import type { GuardianSet } from './life-state.ts'
import { peerFleet } from './peer-fleet.ts'
import { probeGuardians } from './share-health.ts'

test('who has answered while the machine stood still is healthy', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const ward = await fleet.node()
  const key = await guardian.keys.prepare(ward.node, publicPem(ward.identity), 1)
  const { identity, url, keys } = guardian
  const find = keys.find.bind(keys)
  keys.find = async (...of) => {
    standStill(4_000)
    return await find(...of)
  }
  const set: GuardianSet = {
    ...{ id: 'order', epoch: 1, threshold: 1 },
    guardians: [
      {
        ...{ node: identity.node, addresses: [url], identity: publicPem(identity.identity) },
        ...{ key: { ...key }, signature: '' },
      },
    ],
  }
  const found = await probeGuardians(ward, set, 3_000)
  assert.deepEqual(found, [{ guardian: identity.node, healthy: true }])
})
