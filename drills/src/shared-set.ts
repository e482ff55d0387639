import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, run } from '@holdfast/base'
import { parsePolicy } from '@holdfast/seal'
import { bindVault, listVault, type VaultDeps, type VolumeRef } from '@holdfast/vault'
import { type Balancer, startBalancer } from './balancer.ts'
import type { Drill, Stage } from './drill.ts'
import { keysOf, makeOwned, opens, setServers, unattended } from './scene.ts'
import type { ServerProcess } from './server-process.ts'
import { Waiting } from './waiting.ts'

// Load-balanced sets: several servers with identical keys behind one address.

const stormSize = 60

/** One member of a set dies in the middle of a boot storm. */
export const sharedSetMemberKilled: Drill = {
  name: 'shared-set-member-killed',
  title: 'One of a load-balanced set is killed during a boot storm',
  summary: `Two key servers with identical keys share one address. One is killed while ${stormSize} machines boot at once; every one of them opens.`,
  run: async (stage) => {
    const { directory, timeline } = stage
    const { members, balancer, pin } = await setSharedSet(stage)
    const machine = unattended(join(directory, 'state'))
    const node = await makeOwned(stage, machine, 'node', parsePolicy('tang', pin))
    const before = { ...balancer.served }
    timeline.note('power returns to the rack: all machines boot', { machines: stormSize })
    const storm = Array.from({ length: stormSize }, () => new Waiting(stage, machine, node))
    await killInMidStorm(stage, storm, balancer, members[0])
    const results = await Promise.allSettled(storm.map((one) => one.opened))
    const failed = results.filter(({ status }) => status === 'rejected').length
    const retries = storm.reduce((sum, one) => sum + one.retries, 0)
    const facts = { failed, retries, connections: { ...balancer.served } }
    timeline.proves(`all ${stormSize} machines open, none fails`, failed === 0, facts)
    timeline.proves('a machine whose request died with the member asked again', retries > 0)
    const shared = members.every(({ port }) => (balancer.served[port] ?? 0) > (before[port] ?? 0))
    timeline.proves('both members had served the storm', shared)
  },
}

/** Kills one member with a request in its hands, after it has answered a few. */
async function killInMidStorm(
  { timeline }: Stage,
  storm: readonly Waiting[],
  balancer: Balancer,
  victim: ServerProcess,
): Promise<void> {
  await balancer.handed(victim.port, stormSize / 6)
  const { pid } = victim
  const requests = balancer.inFlight(victim.port)
  const killed = victim.kill()
  const waiting = storm.filter((one) => one.isWaiting).length
  const facts = { pid, requests, waiting }
  timeline.proves('a member is killed in the middle of an answer', requests > 0, facts)
  await killed
}

/** All members of a set are away for a while: what is bound elsewhere as well still opens. */
export const sharedSetLost: Drill = {
  name: 'shared-set-lost',
  title: 'A whole load-balanced set is lost for a while',
  summary:
    'Every member of a set is down. A machine bound to the set or another server opens; a new binding to the set is refused without a change of the header, and succeeds as soon as one member is back.',
  run: async (stage) => {
    const { directory, timeline, signal } = stage
    const { members, pin } = await setSharedSet(stage)
    const [other] = await setServers(stage, ['other'])
    const machine = unattended(join(directory, 'state'))
    const either = parsePolicy('sss', { t: 1, pins: { tang: [pin, await other?.pin()] } })
    const node = await makeOwned(stage, machine, 'node', either)
    for (const member of members) await member.kill()
    timeline.note('the whole set is down')
    await opens(stage, 'a machine bound to another server as well opens', machine, node)
    const set = parsePolicy('tang', pin)
    const untouched = await digestOf(node)
    await timeline.refuses(
      'a new binding to the set is refused',
      ['seal.server_unreachable', 'seal.server_refused'],
      () => bindVault(machine, node, set, { signal }),
    )
    timeline.proves('and the disk is untouched', (await digestOf(node)) === untouched)
    const [back] = members
    await back?.start()
    timeline.note('one member is back', { member: back?.name })
    const { keyslot } = await bindVault(machine, node, set, { signal })
    timeline.proves('the binding is made', await hasSlot(machine, node, keyslot), { keyslot })
    await opens(stage, 'and opens alone', machine, node, slotOption(keyslot))
  },
}

async function setSharedSet(stage: Stage): Promise<{
  members: readonly [ServerProcess, ServerProcess]
  balancer: Balancer
  pin: { url: string; thp: string }
}> {
  const { directory, cleanup, timeline } = stage
  const [first] = await setServers(stage, ['member-1'])
  if (first === undefined) throw new Error('a server that was set is there')
  await ensureDirectory(join(directory, 'member-2'))
  await run('cp', ['-a', '--', first.directory, join(directory, 'member-2', 'keys')])
  const [second] = await setServers(stage, ['member-2'])
  if (second === undefined) throw new Error('a server that was set is there')
  const [keys, same] = [await keysOf(first), await keysOf(second)]
  timeline.proves('both members have the same keys', keys.join() === same.join(), { keys })
  const members = [first, second] as const
  const balancer = cleanup.use(await startBalancer(members.map(({ port }) => port)))
  timeline.note('one address for both', { url: balancer.url })
  return { members, balancer, pin: { url: balancer.url, thp: await first.thumbprint() } }
}

async function digestOf({ device }: VolumeRef): Promise<string> {
  return createHash('sha256')
    .update(await readFile(device))
    .digest('hex')
}

async function hasSlot(deps: VaultDeps, volume: VolumeRef, keyslot?: number): Promise<boolean> {
  const { slots } = await listVault(deps, volume)
  return slots.some((slot) => slot.keyslot === keyslot && slot.purpose === 'automatic')
}

function slotOption(keyslot: number | undefined): { keyslot?: number } {
  return keyslot === undefined ? {} : { keyslot }
}
