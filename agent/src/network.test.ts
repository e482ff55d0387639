import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type RunningProgram, run, startProgram, systemClock } from '@holdfast/base'
import { fetchCard, parseCode } from '@holdfast/link'
import type { Peer } from '@holdfast/protocol/documents'
import type { NodeCard, NodeReport } from '@holdfast/protocol/frames'

import { testCoordinator, until } from './agent-lab.ts'
import type { AgentEvent } from './agent-options.ts'
import { publicPem } from './identity.ts'
import { probePeer } from './peer-client.ts'
import { type PeerFleet, peerFleet } from './peer-fleet.ts'
import { verifyReleaseLog } from './release-log.ts'

// Agents as processes, each in a network namespace of its own like a machine, joined by a bridge. Where
// the kernel has no WireGuard, Debian's wireguard-go makes their tunnels.

type Coordinator = Awaited<ReturnType<typeof testCoordinator>>

interface Machine {
  namespace: string
  /** Differs from machine to machine: wireguard-go's sockets are in the file system they share. */
  device: string
  outside: string
  inside: string
  directory: string
  events: AgentEvent[]
  card?: NodeCard
  running?: RunningProgram
  start(): Promise<void>
  stop(): Promise<void>
}

const holder = publicPem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
const ip = (...args: string[]) => run('ip', args)

async function machines(count: number) {
  const stack = new AsyncDisposableStack()
  const tag = randomBytes(2).toString('hex')
  const bridge = `hfn${tag}`
  // RFC 2544's range for tests; by chance, so that two runs do not share a subnet.
  const subnet = `198.18.${Number.parseInt(tag.slice(0, 2), 16)}`
  const made: Machine[] = []
  try {
    await ip('link', 'add', bridge, 'type', 'bridge')
    stack.defer(async () => void (await ip('link', 'delete', 'dev', bridge)))
    await ip('address', 'add', `${subnet}.254/24`, 'dev', bridge)
    await ip('link', 'set', bridge, 'up')
    for (let index = 1; index <= count; index += 1)
      made.push(await machine(stack, { bridge, subnet, tag, index }))
  } catch (error) {
    await stack.disposeAsync()
    throw error
  }
  return {
    machines: made,
    coordinator: `${subnet}.254`,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

async function machine(
  stack: AsyncDisposableStack,
  at: { bridge: string; subnet: string; tag: string; index: number },
) {
  const { bridge, subnet, tag, index } = at
  const namespace = `hfn${tag}${index}`
  await ip('netns', 'add', namespace)
  stack.defer(async () => void (await ip('netns', 'delete', namespace)))
  const [near, outside] = [`w${tag}${index}`, `${subnet}.${index}`]
  const pair = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace]
  await ip('link', 'add', near, ...pair)
  await ip('link', 'set', near, 'master', bridge, 'up')
  await ip('-n', namespace, 'address', 'add', `${outside}/24`, 'dev', 'eth0')
  await ip('-n', namespace, 'link', 'set', 'eth0', 'up')
  await ip('-n', namespace, 'link', 'set', 'lo', 'up')
  const path = await mkdtemp(join(tmpdir(), 'holdfast-network-'))
  const memory = await mkdtemp('/dev/shm/holdfast-network-')
  for (const each of [path, memory]) stack.defer(() => rm(each, { recursive: true, force: true }))
  await writeFile(join(path, 'disk.img'), '')
  await truncate(join(path, 'disk.img'), 32 * 1024 * 1024)
  const device = `hfw${tag}${index}`
  const it: Machine = {
    namespace,
    device,
    outside,
    inside: `10.88.0.${index}`,
    directory: join(path, 'node'),
    events: [],
    start: async () => {
      const main = new URL('main.ts', import.meta.url).pathname
      const args = ['netns', 'exec', namespace, process.execPath, main]
      args.push('--directory', it.directory, '--runtime', memory, '--tpm', 'off')
      args.push('--device', join(path, 'disk.img'), '--tunnel', device)
      const onLine = (line: string) => {
        if (line.startsWith('{')) it.events.push(JSON.parse(line) as AgentEvent) // main.ts writes them
      }
      const options = { onLine, readyWithin: 120_000, grace: 60_000 }
      it.running = (await startProgram('ip', args, () => true, options)).running
    },
    stop: async () => {
      await it.running?.[Symbol.asyncDispose]()
    },
  }
  stack.defer(it.stop)
  return it
}

async function enrol(it: Machine, genesis: boolean, fleet: PeerFleet, coordinator: Coordinator) {
  await it.start()
  const shown = await until('a code', () => it.events.findLast((event) => event.kind === 'code'))
  await until('an open port', () => it.events.find(({ kind }) => kind === 'enrolment_port'))
  using code = parseCode(shown.kind === 'code' ? shown.code : '')
  const carded = await fetchCard(`${it.outside}:9999`, code, { timeout: 60_000 })
  it.card = carded.card
  await carded.push({
    ...coordinator.enrolment,
    address: `${it.inside}/16`,
    certificate: await fleet.certify(carded.card.certificateRequest),
    genesis,
    holders: { threshold: 1, keys: { alice: holder } },
  })
  return carded.card
}

/** The machines as entries of a signed list. */
function listed(machines: readonly Machine[], relation: Peer['relation']): Peer[] {
  return machines.flatMap(({ card, inside, outside }) => {
    if (card === undefined) return []
    const { node, identity, wireguard } = card
    const endpoint = `${outside}:51820`
    const urls = [`https://${outside}:9998`]
    return [{ node, name: 'n', relation, identity, wireguard, address: inside, endpoint, urls }]
  })
}

async function givePeers(coordinator: Coordinator, to: Machine, peers: Peer[], version: number) {
  const node = to.card?.node ?? ''
  const { cluster } = coordinator.enrolment
  const body = JSON.stringify({ cluster, node, peers })
  const session = await coordinator.session(node)
  await session.deliver(coordinator.sign({ name: 'peers', version, body }))
}

/** From which ranges guardians may release anything. */
async function giveSources(
  coordinator: Coordinator,
  to: Machine,
  sources: readonly string[],
  version: number,
) {
  const { cluster } = coordinator.enrolment
  const rest = { services: {}, healthChecks: {}, vault: {}, twoPersonRule: false }
  const body = JSON.stringify({
    cluster,
    manifest: 'm'.repeat(43),
    guardians: { sources },
    ...rest,
  })
  const session = await coordinator.session(to.card?.node ?? '')
  await session.deliver(coordinator.sign({ name: 'policy', version, body }))
}

/** Lets the guardians make keys and orders the ward to move to them, at these addresses. */
async function share(
  coordinator: Coordinator,
  ward: Machine,
  guardians: readonly Machine[],
  epoch: number,
  address: (machine: Machine) => string,
) {
  const { node = '', identity = '' } = ward.card ?? {}
  const set = []
  for (const guardian of guardians) {
    const by = guardian.card
    assert.ok(by !== undefined)
    const id = randomBytes(16).toString('base64url')
    const session = await coordinator.session(by.node)
    const before = coordinator.frames.length
    const errand = { kind: 'ward', action: 'prepare', ward: node, identity, epoch, id } as const
    await session.deliver(coordinator.signErrand(by.node, errand))
    const made = await until('a key', () =>
      coordinator.frames.slice(before).find((frame) => frame.kind === 'ward-key'),
    )
    assert.ok(made.kind === 'ward-key')
    const { key, signature } = made
    const at = [address(guardian)]
    set.push({ node: by.node, addresses: at, identity: by.identity, key, signature })
  }
  const id = randomBytes(16).toString('base64url')
  const session = await coordinator.session(node)
  const errand = { kind: 'reshare', id, epoch, threshold: set.length, guardians: set } as const
  await session.deliver(coordinator.signErrand(node, errand))
}

async function reported(coordinator: Coordinator, is: (report: NodeReport) => boolean) {
  return await until('the report', () => coordinator.reports.findLast(is))
}

/** Waits until it is enrolled to the end: who reports that has no ear for other guardians. */
async function enrolled({ events }: Machine): Promise<void> {
  await until('the end of its enrolment', () => {
    const last = events.findLast((event) => event.kind === 'phase')
    return last?.kind === 'phase' && last.phase === 'open' && last.task === undefined
      ? true
      : undefined
  })
}

/** The peers of its interface, which it makes beside everything else. */
async function peersInUse({ namespace, device }: Machine): Promise<number> {
  const args = ['netns', 'exec', namespace, 'wg', 'show', device, 'peers']
  for (let tried = 0; ; tried += 1) {
    const { code, stdout } = await run('ip', args, { accept: tried < 600 ? [0, 1] : [0] })
    if (code === 0) return stdout.toString().trim().split('\n').filter(Boolean).length
    await systemClock.sleep(100)
  }
}

async function hasInterface({ namespace, device }: Machine): Promise<boolean> {
  const args = ['-n', namespace, 'link', 'show', 'dev', device]
  return (await run('ip', args, { accept: [0, 1] })).code === 0
}

test('a ward opens through real tunnels, outside of them when they are gone, and says which', async () => {
  await using fleet = await peerFleet()
  await using here = await machines(3)
  const [one, two, ward] = here.machines
  assert.ok(one && two && ward)
  const coordinator = await testCoordinator(fleet, here.coordinator)
  await using _stop = { [Symbol.asyncDispose]: coordinator.stop }
  const guardians = [one, two]
  for (const guardian of guardians) await enrol(guardian, true, fleet, coordinator)
  const { node } = await enrol(ward, false, fleet, coordinator)
  for (const guardian of guardians)
    await givePeers(coordinator, guardian, listed([ward], 'ward'), 1)
  await givePeers(coordinator, ward, listed(guardians, 'guardian'), 1)

  // Port 9 refuses: nothing but the tunnel leads to these guardians.
  await share(coordinator, ward, guardians, 1, ({ outside }) => `https://${outside}:9`)
  await reported(coordinator, ({ phase, epoch }) => phase === 'open' && epoch === 1)
  const log = await verifyReleaseLog(join(one.directory, 'releases.log'))
  const released = log.filter(({ event, ward: who }) => event === 'released' && who === node)
  assert.ok(released.length > 0)
  // Rules about sources are about where packets come from, not about addresses in the tunnel.
  assert.deepEqual([...new Set(released.map(({ source }) => source))], [ward.outside])
  assert.equal(await peersInUse(ward), 2)

  await ward.stop()
  assert.equal(await hasInterface(ward), false, 'the interface goes with the process')
  coordinator.reports.length = 0
  await ward.start()
  const up = await reported(coordinator, ({ phase, epoch, network }) => {
    return phase === 'open' && epoch === 1 && network !== 'mutual-tls'
  })
  assert.match(up.network, /^(kernel-wireguard|wireguard-go)$/)
  assert.equal(up.networkReason, undefined)

  // Who is not on the list any more is no peer any more, and is asked outside of the tunnel.
  await enrolled(ward)
  await share(coordinator, ward, guardians, 2, ({ outside }) => `https://${outside}:9998`)
  await reported(coordinator, ({ phase, epoch }) => phase === 'open' && epoch === 2)
  await givePeers(coordinator, ward, listed([one], 'guardian'), 2)
  await givePeers(coordinator, ward, [], 3)
  await ward.stop()
  coordinator.reports.length = 0
  await ward.start()
  const down = await reported(coordinator, ({ phase, epoch }) => phase === 'open' && epoch === 2)
  assert.equal(await peersInUse(ward), 0)
  assert.equal(down.network, 'mutual-tls')
  assert.match(down.networkReason ?? '', /nobody answers through it|being made/)
})

test('with rules about sources a machine is answered where it really is, and nowhere else', async () => {
  await using fleet = await peerFleet()
  await using here = await machines(2)
  const [guardian, ward] = here.machines
  assert.ok(guardian && ward)
  const coordinator = await testCoordinator(fleet, here.coordinator)
  await using _stop = { [Symbol.asyncDispose]: coordinator.stop }
  await enrol(guardian, true, fleet, coordinator)
  const { node } = await enrol(ward, false, fleet, coordinator)
  await givePeers(coordinator, guardian, listed([ward], 'ward'), 1)
  await givePeers(coordinator, ward, listed([guardian], 'guardian'), 1)
  await giveSources(coordinator, guardian, [`${ward.outside}/32`], 1)
  const address = ({ outside }: Machine) => `https://${outside}:9998`
  await share(coordinator, ward, [guardian], 1, address)
  await reported(coordinator, ({ phase, epoch }) => phase === 'open' && epoch === 1)
  const restart = async () => {
    await ward.stop()
    coordinator.reports.length = 0
    await ward.start()
  }
  const opens = ({ phase, epoch }: NodeReport) => phase === 'open' && epoch === 1

  // The tunnel is up, so it asks there first, where nobody can say where it is.
  await restart()
  const up = await reported(
    coordinator,
    (report) => opens(report) && report.network !== 'mutual-tls',
  )
  assert.match(up.network, /^(kernel-wireguard|wireguard-go)$/)
  const log = () => verifyReleaseLog(join(guardian.directory, 'releases.log'))
  const released = (await log()).filter(({ event }) => event === 'released')
  assert.deepEqual([...new Set(released.map(({ source }) => source))], [ward.outside])

  await giveSources(coordinator, guardian, [`${guardian.outside}/32`, `${ward.inside}/32`], 2)
  await restart()
  const incident = await until('the alarm', () =>
    coordinator.frames.findLast(
      (frame) => frame.kind === 'incident' && frame.code === 'peer.release_refused',
    ),
  )
  assert.ok(incident.kind === 'incident')
  assert.equal(incident.text, `node ${node} asked from ${ward.outside}: agent.guardian_source`)
  const count = async () => (await log()).filter(({ event }) => event === 'released').length
  assert.equal(await count(), released.length, 'nothing was released')
  assert.equal(coordinator.reports.some(opens), false)

  await giveSources(coordinator, guardian, [`${ward.outside}/32`], 3)
  await reported(coordinator, opens)
  assert.ok((await count()) > released.length)
})

test('a guardian that does not answer in the tunnel is asked outside of it', async () => {
  await using fleet = await peerFleet()
  const guardian = await fleet.guardian()
  const identity = await fleet.node()
  const key = await guardian.keys.prepare(identity.node, publicPem(identity.identity), 1)
  const place = { guardian: guardian.identity.node, addresses: [guardian.url], epoch: 1, key }
  const asked: string[] = []
  const tunnelTo = (id: string) => {
    asked.push(id)
    return 'https://127.0.0.1:9'
  }
  await probePeer({ ...identity, tunnelTo }, place, AbortSignal.timeout(60_000))
  assert.deepEqual(asked, [guardian.identity.node])
})
