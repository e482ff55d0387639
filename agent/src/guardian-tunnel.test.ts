import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { canonicalJson } from '@holdfast/base'
import { generateEcKey, thumbprint } from '@holdfast/crypto'
import { exchange, pinnedTls, signBody } from '@holdfast/link'
import { publicPem } from './identity.ts'
import { askPeer, probePeer } from './peer-client.ts'
import { peerFleet, type TestGuardian } from './peer-fleet.ts'
import { requestBody } from './peer-protocol.ts'
import { verifyReleaseLog } from './release-log.ts'
import type { ReleasePolicy } from './release-rules.ts'

// What a guardian does for callers in the tunnel, of whom it cannot know where they are.

const refused = { code: 'agent.guardian_tunnel_refused' }
const nowhere = 'https://127.0.0.1:9' // refuses connections

async function wardOf(guardian: TestGuardian, fleet: Awaited<ReturnType<typeof peerFleet>>) {
  const node = await fleet.node()
  const key = await guardian.keys.prepare(node.node, publicPem(node.identity), 1)
  const ward = { ...node, tunnelTo: () => guardian.tunnelUrl }
  const { x, y } = generateEcKey(key.crv)
  const point = { kty: 'EC', crv: key.crv, x, y } as const
  const place = (...addresses: string[]) =>
    ({ ...{ guardian: guardian.identity.node, addresses, epoch: 1, key } }) as const
  const signal = AbortSignal.timeout(60_000)
  return {
    ...{ ward, key, point },
    ask: (...addresses: string[]) => askPeer(ward, place(...addresses), point, signal),
    probe: (...addresses: string[]) => probePeer(ward, place(...addresses), signal),
  }
}

const events = async ({ directory }: TestGuardian) =>
  (await verifyReleaseLog(join(directory, 'releases.log'))).map(({ event }) => event)

const rules: Partial<ReleasePolicy>[] = [{ sources: ['127.0.0.0/8'] }, { holdMinutes: 10 }]

test('with rules about sources or a hold a guardian answers outside of the tunnel only', async () => {
  await using fleet = await peerFleet()
  for (const policy of rules) {
    const guardian = await fleet.guardian({ policy })
    const { ask, probe } = await wardOf(guardian, fleet)
    await assert.rejects(ask(), refused)
    await assert.rejects(probe(), refused)
    assert.deepEqual(await events(guardian), [])
    await assert.rejects(ask(nowhere), { code: 'agent.guardian_unreachable' })
    await probe(guardian.url)
    const held = policy.holdMinutes !== undefined
    if (held) await assert.rejects(ask(guardian.url), { code: 'agent.guardian_held' })
    guardian.time.now += 600_000
    await ask(guardian.url)
    assert.equal((await events(guardian)).at(-1), 'released')
  }
})

test('a nonce from outside of the tunnel is worth nothing in it, and it is written down', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian({ policy: { sources: ['127.0.0.0/8'] } })
  const { ward, key, point } = await wardOf(guardian, fleet)
  const { node } = guardian.identity
  const tls = pinnedTls(node, { own: ward.own, authority: ward.authority })
  const options = { tls, limit: 65_536 }
  const given = await exchange(`${guardian.url}/peer/nonce`, { ...options, method: 'GET' })
  const { nonce } = JSON.parse(given.body.toString()) as { nonce: string } // the guardian's answer
  const kid = thumbprint(key)
  const request = { ward: ward.node, epoch: 1, nonce, point }
  const signed = requestBody(node, kid, request)
  const signature = signBody(ward.identity, 'peer-release', signed)
  const post = async (url: string) => {
    const body = canonicalJson({ ...request, signature })
    const reply = await exchange(`${url}/peer/rec/${kid}`, { ...options, method: 'POST', body })
    return reply.status
  }
  assert.equal(await post(guardian.tunnelUrl), 403)
  assert.deepEqual(await events(guardian), ['refused'])
  assert.equal(await post(guardian.url), 200)
  tls.destroy()
})

test('without such rules a guardian answers in the tunnel', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const { ask, probe } = await wardOf(guardian, fleet)
  await probe()
  await ask(nowhere)
  assert.deepEqual(await events(guardian), ['probed', 'released'])
})
