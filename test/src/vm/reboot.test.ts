import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { freePort, run, startProgram, systemClock } from '@holdfast/base'
import { type ControlPlane, isGuarded, startControlPlane } from '@holdfast/drills'
import { nodeRoutes, userRoutes } from '@holdfast/protocol'
import { guestArguments } from './guest.ts'
import { buildImage, bundled } from './image.ts'
import { addSystemd, systemdInit } from './systemd-guest.ts'

// A machine of its own, with systemd as process 1, an agent as its service and a vault that
// device-mapper holds open, is a node of a real fleet: a coordinator and three guardians outside of it.
// It is told to reboot, does, and is back with all it did before, with nobody's help.

const here = dirname(fileURLToPath(import.meta.url))
const checkout = join(here, '../../..')
const program = (part: string) => ({
  program: process.execPath,
  args: [join(checkout, part, 'src/main.ts')],
})
const words = 'echo start >> starts; echo "start number $(wc -l < starts)"; exec sleep 1000000'
const manifest = {
  guardians: { count: 3, threshold: 2, margin: 0 },
  genesis: { peers: 2 },
  services: { counter: { command: ['/bin/sh', '-c', words], directory: 'counter' } },
}

/** Three nodes outside, each of which guards the others. */
async function enrolGuardians(plane: ControlPlane): Promise<void> {
  const invite = await plane.invite(3)
  const first = await plane.startNode()
  await plane.enrol(first, { invite, genesis: true })
  for (const _ of [2, 3]) await plane.enrol(await plane.startNode(), { invite })
  await until('the nodes outside guard each other', async () => {
    const views = await plane.views()
    return views.length === 3 && views.every(isGuarded) ? true : undefined
  })
}

/** Asks, within half an hour, until there is an answer: the machine is emulated. */
async function until<T>(
  what: string,
  look: () => Promise<T | undefined>,
  evidence: () => Promise<string> = async () => '',
): Promise<T> {
  for (let second = 0; second < 1_800; second += 1) {
    const found = await look()
    if (found !== undefined) return found
    await systemClock.sleep(1_000)
  }
  throw new Error(`${what}: not in time\n${await evidence()}`)
}

async function blank(path: string, bytes: number): Promise<string> {
  await writeFile(path, '')
  await truncate(path, bytes)
  return path
}

/** The machine: its vault's disk, and one for what the agent keeps outside of it. */
async function startMachine(plane: ControlPlane, folder: string) {
  const [enrolment, peer] = [await freePort(), await freePort()]
  const agent = [
    ...['/usr/bin/node /guest/agent.mjs --directory /var/lib/holdfast/node --device /dev/vda'],
    ...[`--peer-port ${peer} --tunnel off --tpm off --console /dev/console`],
  ].join(' ')
  const ports = join(folder, 'ports.json')
  const outside = [Number(new URL(plane.coordinator.url).port)]
  for (const { peerPort } of plane.nodes) outside.push(peerPort)
  await writeFile(ports, JSON.stringify(outside))
  const files = {
    ...(await bundled(
      checkout,
      join(checkout, 'agent/src/main.ts'),
      join(folder, 'bundle'),
      'agent.mjs',
    )),
    'guest/uplink.mjs': join(here, 'uplink.mjs'),
    'guest/ports.json': ports,
  }
  const init = systemdInit(
    'ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up\n' +
      'mkdir -p /new/var/lib/holdfast && mount -t ext4 /dev/vdb /new/var/lib/holdfast',
  )
  const services = { uplink: '/usr/bin/node /guest/uplink.mjs', agent }
  const image = await buildImage(folder, checkout, init, (root) =>
    addSystemd(root, files, services),
  )
  const vault = await blank(join(folder, 'vault'), 64 * 1024 * 1024)
  const state = await blank(join(folder, 'state'), 64 * 1024 * 1024)
  await run('mkfs.ext4', ['-q', state])
  const console = await blank(join(folder, 'console.log'), 0)
  const forwards = [
    { host: enrolment, guest: 9999 },
    { host: peer, guest: peer },
  ]
  // QEMU itself says nothing; its end of the line would.
  const args = guestArguments(image, [vault, state], console, forwards)
  const { running } = await startProgram(
    'sh',
    ['-c', 'echo up; exec "$@"', 'sh', 'qemu-system-x86_64', ...args],
    () => true,
  )
  const said = () => readFile(console, 'utf8')
  return {
    running,
    said,
    address: `127.0.0.1:${enrolment}`,
    boots: async () =>
      [...(await said()).matchAll(/^BOOT (.*?)\r?\n/gm)].map(
        ([, line = '']) => JSON.parse(line) as { id: string; first: string; version: string }, // uplink.mjs wrote it
      ),
  }
}

/** What the service has said since the machine booted, once it has said that it started. */
async function journalOf({ client }: ControlPlane, node: string): Promise<string> {
  const body = { command: 'logs' as const, arguments: { service: 'counter' } }
  // A service runs from its first instruction on: what it says then comes a little later.
  return await until('the service has said that it started', async () => {
    const { id } = await client.call(nodeRoutes.command, { params: { node }, body })
    const journal = await until('the journal of the service', async () => {
      const found = await client.call(nodeRoutes.commandState, { params: { id } })
      return found.state === 'done' ? (found.output ?? '') : undefined
    })
    return /start number \d/.test(journal) ? journal : undefined
  })
}

test('a machine that is told to reboot comes back open, with its services, and says so once', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-vm-reboot-'))
  try {
    const programs = { coordinator: program('coordinator'), agent: program('agent') }
    const directory = join(folder, 'fleet')
    await using plane = await startControlPlane({ directory, programs, manifest })
    await enrolGuardians(plane)
    const { client } = plane
    const machine = await startMachine(plane, folder)
    await using _running = machine.running
    const evidence = async () => (await machine.said()).slice(-6000)
    const seen = async (id: string) => await client.call(nodeRoutes.get, { params: { node: id } })

    const code = await until(
      'a code on the console',
      // A serial line is written letter by letter: the code is whole when its line is.
      async () => /enrolment code: (\S+)\r?\n/.exec(await machine.said())?.[1],
      evidence,
    )
    const invite = await plane.invite()
    const body = { invite, address: machine.address, code, name: 'machine', genesis: false }
    const { node } = await client.call(nodeRoutes.enrol, { body })
    const works = async () => {
      const view = await seen(node)
      const { mapped, services } = view.report ?? {}
      const isUp = view.connected && isGuarded(view) && mapped === true
      return isUp && services?.counter === 'running' ? view : undefined
    }
    const before = await until('the machine is guarded and its service runs', works, evidence)
    assert.equal(before.phase, 'open')
    assert.deepEqual(before.report?.ways.map(({ purpose }) => purpose).sort(), [
      'automatic',
      'recovery',
    ])
    const [first] = await machine.boots()
    assert.match(first?.version ?? '', /^systemd \d+/)
    assert.match(first?.first ?? '', /\/lib\/systemd\/systemd$/)

    assert.match(await journalOf(plane, node), /start number 1\b/)

    const order = { params: { node }, body: { command: 'reboot' as const } }
    const { id } = await client.call(nodeRoutes.command, order)
    const done = await until(
      'the reboot has ended',
      async () => {
        const found = await client.call(nodeRoutes.commandState, { params: { id } })
        return found.state === 'done' || found.state === 'failed' ? found : undefined
      },
      evidence,
    )
    assert.equal(done.state, 'done', `${done.code} ${done.message}`)
    const after = await until('the machine is back as it was', works, evidence)
    assert.deepEqual([after.phase, after.epoch], ['open', before.epoch])
    const boots = await machine.boots()
    assert.deepEqual(done.result, { before: boots[0]?.id, after: boots[1]?.id })
    assert.equal(boots.length, 2, 'the machine has booted twice')

    const journal = await journalOf(plane, node)
    assert.match(journal, /start number 2\b/, 'it found what it wrote before the reboot')
    assert.doesNotMatch(journal, /start number 1\b/, 'the journal of this boot has one start')

    const { entries } = await client.call(userRoutes.audit, { query: { limit: 1000 } })
    const results = entries.filter(
      ({ actor, action }) => actor === `node:${node}` && action === 'command.reboot',
    )
    assert.deepEqual(
      results.map(({ outcome, data }) => [outcome, data.id]),
      [['done', id]],
    )
    const unlocks = entries.filter(({ action }) => action === 'command.unlock')
    assert.deepEqual(unlocks, [], 'nobody has opened it')
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
