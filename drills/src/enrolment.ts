import { join } from 'node:path'
import { parseJsonObject } from '@holdfast/base'
import { createFetch, parsePolicy } from '@holdfast/seal'
import { listVault, maintainVault, type VaultDeps, type VolumeRef } from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { serversPolicy } from './local-fleet.ts'
import { makeOwned, opens, setServers, staysShut, unattended } from './scene.ts'
import type { ServerProcess } from './server-process.ts'

// New machines while a network segment is lost. The guide says that enrolment needs every server.

/** Enrolment with the servers that answer, completed later without anybody's doing. */
export const enrolDegraded: Drill = {
  name: 'enrol-degraded',
  title: 'Enrolment while a server cannot be reached',
  summary:
    'One of three servers is away. The new machine is bound to the two that answer, the threshold unchanged, and its own maintenance binds the third when that is back.',
  run: async (stage) => {
    const { directory, timeline } = stage
    const servers = await setServers(stage, ['tang-1', 'tang-2', 'tang-3'])
    const [first, , third] = servers
    const machine = unattended(join(directory, 'state'))
    const policy = await serversPolicy(servers, 2)
    await third?.kill()
    timeline.note('a network segment is lost', { server: third?.name })
    await refusesWhole(stage, machine, policy)
    const node = await makeOwned(stage, machine, 'node', policy, { reachable: true })
    await isBound(stage, 'the node is bound to 2 of 2 and knows what is missing', machine, node, {
      of: 2,
      complete: false,
    })
    await opens(stage, 'it opens', machine, node)
    await first?.stop()
    await staysShut(stage, 'the threshold was not lowered: one server is not enough', machine, node)
    await first?.start()
    const early = await maintainVault(machine, node)
    timeline.proves('maintenance waits while the segment is lost', early.completed.length === 0)

    await third?.start()
    timeline.note('the segment is back; nobody does anything')
    await untilComplete(stage, machine, node)
    await isBound(stage, 'maintenance has bound the node to 2 of 3', machine, node, {
      of: 3,
      complete: true,
    })
    await first?.kill()
    await opens(stage, 'it opens without one of the first two', machine, node)
  },
}

async function refusesWhole(
  stage: Stage,
  machine: VaultDeps,
  policy: Awaited<ReturnType<typeof serversPolicy>>,
): Promise<void> {
  const { directory, timeline } = stage
  await timeline.refuses(
    'enrolment with the whole policy is refused',
    ['seal.server_unreachable'],
    () => makeOwned(stage, machine, 'refused', policy),
  )
  await timeline.refuses('and the disk is still blank', ['vault.not_luks'], () =>
    listVault(machine, { device: join(directory, 'refused.img') }),
  )
}

/** What the machine's timer does: maintenance again and again, until nothing is missing. */
async function untilComplete(
  { signal, timeline }: Stage,
  machine: VaultDeps,
  node: VolumeRef,
): Promise<void> {
  for (let round = 1; round <= 20; round += 1) {
    signal.throwIfAborted()
    const { completed } = await maintainVault(machine, node)
    const [done] = completed
    if (done === undefined || done.missing.length > 0) continue
    timeline.note('maintenance completes the binding', { round, from: done.from, to: done.to })
    return
  }
}

async function isBound(
  { timeline }: Stage,
  step: string,
  machine: VaultDeps,
  node: VolumeRef,
  expected: { of: number; complete: boolean },
): Promise<void> {
  const { slots } = await listVault(machine, node)
  const bound = slots.find(({ purpose }) => purpose === 'automatic')
  const { threshold, children = [] } = bound?.inspection ?? {}
  const complete = bound?.wanted === undefined
  const holds = threshold === 2 && children.length === expected.of && complete === expected.complete
  timeline.proves(step, holds, { threshold, of: children.length, complete })
}

/** Enrolment on to a server that has never been reached, by an advertisement brought by hand. */
export const enrolOffline: Drill = {
  name: 'enrol-offline',
  title: 'Enrolment with an offline advertisement',
  summary:
    'A server is away, but its signed advertisement was brought along. The new machine is bound to it at once; when it is up and another is down, the machine opens through it. A forged advertisement is refused.',
  run: async (stage) => {
    const { directory, timeline, signal } = stage
    const [first, second, away, forger] = await setServers(stage, [
      'tang-1',
      'tang-2',
      'tang-3',
      'forger',
    ])
    if (!first || !second || !away || !forger) throw new Error('servers that were set are there')
    const pins = await Promise.all([first, second, away].map((server) => server.pin()))
    const adv = await advertisementOf(away, signal)
    timeline.note('the advertisement is carried out of the segment', { from: away.name })
    await away.kill()
    timeline.note('the segment is lost', { server: away.name })

    const machine = unattended(join(directory, 'state'))
    const policyWith = (brought: object) => {
      const tang = pins.map((pin) => (pin.url === away.url ? { ...pin, adv: brought } : pin))
      return parsePolicy('sss', { t: 2, pins: { tang } })
    }
    const forged = await advertisementOf(forger, signal)
    await refusesAdvertisement(stage, 'a foreign advertisement', machine, policyWith(forged))
    await refusesAdvertisement(stage, 'an altered one', machine, policyWith(altered(adv)))
    const node = await makeOwned(stage, machine, 'node', policyWith(adv))
    await isBound(stage, 'the node is bound to all three', machine, node, { of: 3, complete: true })
    await opens(stage, 'it opens by the two that answer', machine, node)

    await away.start()
    await first.kill()
    timeline.note('the segment is back, another server is lost', { lost: first.name })
    await opens(stage, 'it opens through the server it had never talked to', machine, node)
  },
}

async function advertisementOf(server: ServerProcess, signal: AbortSignal): Promise<object> {
  const { body } = await createFetch()(`${server.url}/adv`, { method: 'GET', signal })
  return parseJsonObject(body, 'an advertisement')
}

/** The same advertisement with one signature character changed. */
function altered(adv: object): object {
  const text = JSON.stringify(adv)
  const at = text.indexOf('"signature":"') + 20
  const other = text[at] === 'A' ? 'B' : 'A'
  return parseJsonObject(text.slice(0, at) + other + text.slice(at + 1), 'an advertisement')
}

async function refusesAdvertisement(
  stage: Stage,
  what: string,
  machine: VaultDeps,
  policy: ReturnType<typeof parsePolicy>,
): Promise<void> {
  const codes = ['seal.trust_refused', 'crypto.advertisement_unsigned']
  await stage.timeline.refuses(`${what} is refused`, codes, () =>
    makeOwned(stage, machine, what.replaceAll(' ', '-'), policy),
  )
}
