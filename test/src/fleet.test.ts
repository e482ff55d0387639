import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import {
  type ControlPlane,
  type FleetNode,
  isGuarded,
  type NodeView,
  startControlPlane,
} from '@holdfast/drills'
import { nodeRoutes } from '@holdfast/protocol'

// Where the coordinator and the agents meet for the first time: one real coordinator, five real agents,
// every word between them over the real protocol. The tests are one story and run in their order.

const program = (part: string) => ({
  program: process.execPath,
  args: [fileURLToPath(import.meta.resolve(`@holdfast/${part}`)).replace(/index\.ts$/, 'main.ts')],
})

/** Any 2 of 4 guardians open a node; one more must stay when a node goes down on purpose. */
const manifest = { guardians: { count: 4, threshold: 2, margin: 1 }, genesis: { peers: 4 } }

describe('a fleet from its first claim to reboots', () => {
  let directory: string
  let plane: ControlPlane
  let invite: string
  const nodes: FleetNode[] = []
  /** The epochs in which the nodes were moved to guardians. */
  const epochs = new Map<string, number>()

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hf-fleet-'))
    const programs = { coordinator: program('coordinator'), agent: program('agent') }
    plane = await startControlPlane({ directory, programs, manifest })
  })
  after(async () => {
    await plane?.[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })

  function numbered(number: number): FleetNode {
    const node = nodes[number - 1]
    assert.ok(node)
    return node
  }

  async function waysOf(node: FleetNode): Promise<string[]> {
    const { report } = await plane.view(node)
    return (report?.ways ?? []).map(({ purpose, label }) => `${purpose} ${label}`.trim()).sort()
  }

  /** What cryptsetup itself finds on the disk. */
  async function keyslots({ device }: FleetNode): Promise<number> {
    const { stdout } = await run('cryptsetup', ['luksDump', '--dump-json-metadata', device])
    const { keyslots: slots } = JSON.parse(stdout.toString('utf8')) as { keyslots: object } // cryptsetup's own format
    return Object.keys(slots).length
  }

  /** Waits until it has been shut for so many attempts of its automatic way. */
  async function staysShut(node: FleetNode, attempts: number): Promise<void> {
    await node.until('has tried in vain', () => {
      const tried = node.events.filter(({ kind }) => kind === 'waiting').length
      return tried >= attempts ? true : undefined
    })
    assert.equal(node.phase, 'locked')
  }

  async function opens(node: FleetNode): Promise<void> {
    await node.until('opens', () => (node.phase === 'open' ? true : undefined))
  }

  async function connected(node: FleetNode): Promise<void> {
    await plane.until(`${node.name} is connected and open`, async () => {
      const view = await plane.view(node)
      return view.connected && view.phase === 'open' ? true : undefined
    })
  }

  /** Tells a node to do something; gives what came of it. */
  async function commanded(
    { node }: FleetNode,
    command: 'reboot' | 'rehearse',
  ): Promise<Record<string, unknown>> {
    const { client } = plane
    const { id } = await client.call(nodeRoutes.command, { params: { node }, body: { command } })
    const done = await plane.until(`${command} has ended`, async () => {
      const found = await client.call(nodeRoutes.commandState, { params: { id } })
      return found.state === 'done' || found.state === 'failed' ? found : undefined
    })
    assert.equal(done.state, 'done', `${done.code} ${done.message}`)
    return done.result ?? {}
  }

  it('runs after its claim, with holders who have proven their shares', async () => {
    const status = await plane.coordinator.status()
    assert.equal(status.state, 'running')
    assert.deepEqual(status.holders?.threshold, 2)
    assert.deepEqual(await plane.views(), [])
  })

  it('does not take its first node without being told that it is the first', async () => {
    const node = await plane.startNode()
    nodes.push(node)
    invite = await plane.invite(5)
    await assert.rejects(plane.enrol(node, { invite }), { code: 'enrolment.genesis_needed' })
    const { invites } = await plane.client.call(nodeRoutes.invites)
    assert.deepEqual(
      invites.map(({ uses, used, reserved }) => ({ uses, used, reserved })),
      [{ uses: 5, used: 0, reserved: 0 }],
    )
  })

  it('binds the first node to the holders', async () => {
    const first = numbered(1)
    await plane.enrol(first, { invite, genesis: true })
    const view = await plane.view(first)
    assert.deepEqual([view.phase, view.epoch, view.guardians], ['open', 0, []])
    assert.deepEqual(await waysOf(first), ['automatic temporary', 'recovery'])
  })

  it('lets others in, and moves all of them to guardians when there are enough', async () => {
    for (const _ of [2, 3, 4, 5]) nodes.push(await plane.startNode())
    const [, ...others] = nodes
    await Promise.all(others.map((node) => plane.enrol(node, { invite })))
    const views = await plane.until('every node is guarded', async () => {
      const seen = await plane.views()
      // Whoever was early has a smaller set until the last one has joined.
      const whole = (view: NodeView) => isGuarded(view) && view.guardians.length === 4
      return seen.length === 5 && seen.every(whole) ? seen : undefined
    })
    for (const { node, guardians, threshold, epoch } of views) {
      epochs.set(node, epoch)
      assert.equal(threshold, 2)
      assert.deepEqual(
        [...guardians].sort(),
        views
          .map((view) => view.node)
          .filter((other) => other !== node)
          .sort(),
      )
    }
    for (const node of nodes) {
      assert.deepEqual(await waysOf(node), [`automatic epoch ${epochs.get(node.node)}`, 'recovery'])
      assert.equal(await keyslots(node), 2)
    }
  })

  it('leaves nobody with a set of guardians that the coordinator does not know', async () => {
    const { invites } = await plane.client.call(nodeRoutes.invites)
    assert.deepEqual([invites[0]?.used, invites[0]?.reserved], [5, 0])
    for (const { node, wards } of await plane.views()) {
      assert.equal(wards.length, 4, node)
    }
  })

  it('opens the first node after a power cut, without holders: the temporary way is gone', async () => {
    const first = numbered(1)
    await first.cutPower()
    await first.start()
    await opens(first)
    await connected(first)
    assert.deepEqual(await waysOf(first), [`automatic epoch ${epochs.get(first.node)}`, 'recovery'])
  })

  it('does not open with one guardian of the two it needs, and opens with two', async () => {
    const [ward, first, second, third] = [numbered(2), numbered(3), numbered(4), numbered(5)]
    for (const node of [ward, first, second, third]) await node.cutPower()
    await ward.start()
    await staysShut(ward, 6)
    // A guardian that is locked itself guards all the same.
    await first.start()
    await opens(ward)
    await opens(first)
    await Promise.all([second.start(), third.start()])
    for (const node of [second, third]) await opens(node)
    for (const node of [ward, first, second, third]) await connected(node)
  })

  it('opens with one guardian more than it needs', async () => {
    const [ward, away] = [numbered(3), numbered(1)]
    await away.cutPower()
    await ward.cutPower()
    await ward.start()
    await opens(ward)
    await connected(ward)
    await away.start()
    await connected(away)
  })

  it('reboots on command and says so when it is back, but not while the others need it', async () => {
    const [ward, away] = [numbered(4), numbered(5)]
    const { before, after } = await commanded(ward, 'reboot')
    assert.notEqual(before, after)
    await connected(ward)
    await away.cutPower()
    await plane.until('the coordinator misses it', async () =>
      (await plane.view(away)).connected ? undefined : true,
    )
    await assert.rejects(commanded(ward, 'reboot'), { code: 'node.needed' })
    await away.start()
    await connected(away)
  })

  it('opens without the coordinator, and finds it again when it is back', async () => {
    const ward = numbered(4)
    await plane.coordinator.kill()
    await ward.cutPower()
    await ward.start()
    await opens(ward)
    await plane.coordinator.start()
    assert.equal((await plane.coordinator.status()).state, 'running')
    for (const node of nodes) await connected(node)
  })

  it('proves every way in and every share on command, and needs no further set', async () => {
    for (const node of nodes) {
      const result = await commanded(node, 'rehearse')
      const { guardians } = result as { guardians: { healthy: boolean }[] } // by its kind
      assert.deepEqual(
        guardians.map(({ healthy }) => healthy),
        [true, true, true, true],
      )
      assert.equal((await plane.view(node)).epoch, epochs.get(node.node))
    }
  })
})
