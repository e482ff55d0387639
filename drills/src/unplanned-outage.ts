import { join } from 'node:path'
import { Secret } from '@holdfast/base'
import type { VaultDeps, VolumeRef } from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { serversPolicy } from './local-fleet.ts'
import { makeOwned, setServers, unattended } from './scene.ts'
import type { ServerProcess } from './server-process.ts'
import { Waiting } from './waiting.ts'

/** Nobody knew: a node comes up and no key server answers. */
export const unplannedOutage: Drill = {
  name: 'unplanned-outage',
  title: 'A network outage that nobody announced',
  summary:
    'A node reboots while no key server answers. It waits and retries, the prompt at its console works meanwhile, and it opens by itself when enough servers are back.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const servers = await setServers(stage, ['tang-1', 'tang-2', 'tang-3'])
    const machine = unattended(join(directory, 'state'))
    const policy = await serversPolicy(servers, 2)
    const node = await makeOwned(stage, machine, 'node', policy)
    for (const server of servers) await server.kill()
    timeline.note('every key server is gone; the node reboots')
    await ownerHelps(stage, machine, node)
    await opensByItself(stage, machine, node, servers)
  },
}

async function ownerHelps(
  stage: Stage,
  machine: VaultDeps,
  node: VolumeRef & { owner: Secret },
): Promise<void> {
  const { timeline } = stage
  const { promise: typed, resolve: type } = Promise.withResolvers<Secret>()
  const waiting = new Waiting(stage, machine, node, { passphrase: () => typed })
  await waiting.until(({ state }) => state === 'retrying', 4)
  timeline.proves('the node waits and asks again', waiting.isWaiting, { retries: waiting.retries })
  type(node.owner.clone())
  const { by } = await waiting.opened
  timeline.proves('the owner types the passphrase meanwhile and it opens', by === 'passphrase')
}

async function opensByItself(
  stage: Stage,
  machine: VaultDeps,
  node: VolumeRef,
  [first, second]: readonly ServerProcess[],
): Promise<void> {
  const { timeline } = stage
  timeline.note('the node reboots again, and nobody knows the passphrase')
  const wrong = () => Promise.resolve(Secret.copy('not the passphrase'))
  const waiting = new Waiting(stage, machine, node, { passphrase: wrong })
  await waiting.until(({ state }) => state === 'retrying', 3)
  timeline.proves('a wrong passphrase does not end the waiting', waiting.isWaiting)
  const answered = waiting.until((event) => event.state === 'opened' && event.label === first?.url)
  await first?.start()
  await answered
  timeline.proves('one of the two servers needed does not open it', waiting.isWaiting, {
    server: first?.name,
  })
  await second?.start()
  timeline.note('a second server is back', { server: second?.name })
  const { by, keyslot } = await waiting.opened
  const { retries } = waiting
  timeline.proves('the node opens by itself', by === 'binding', { keyslot, retries })
}
