import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Secret, systemClock } from '@holdfast/base'
import { statusRoutes } from '@holdfast/protocol'
import { proven, TestNode } from './agents-fixture.ts'
import type { Ask } from './api-client-fixture.ts'
import { verifyAudit } from './audit.ts'
import { person, place, running } from './coordinator-fixture.ts'
import { joinCluster, prepareJoin } from './join.ts'
import { type Postgres, startPostgres } from './local-postgresql.ts'
import { type Instance, startInstance, until } from './process-fixture.ts'
import { password, signInOver } from './server-fixture.ts'
import { openStore } from './store.ts'
import { putUser } from './users.ts'

// Real agents' sessions on several coordinator processes over one PostgreSQL. One process is killed
// under load, and then the primary itself; whatever anybody was told is done must be so afterwards.

const people = ['alice', 'bob', 'carol'].map(person)

interface Cluster extends AsyncDisposable {
  /** Starts the first instance once more. */
  again(): Promise<Instance>
  one: Instance
  two: Instance
  admin: Record<string, string>
}

/** Two running instances, of which the second has joined over the network. */
async function twoInstances(server: Postgres, urls: readonly string[]): Promise<Cluster> {
  await using stack = new AsyncDisposableStack()
  const first = stack.use(await place({ engine: 'postgresql', url: server.url }))
  const made = await running(first.options, people, 2)
  using secret = Secret.copy(password)
  await made.store.write((work) => putUser(work, 'root', ['admin', 'operator'], secret))
  await made[Symbol.asyncDispose]()
  const file = join(first.directory, 'postgresql')
  await writeFile(file, urls.join('\n'), { mode: 0o600 })
  const words = (name: string) => ['--store', file, '--instance', name]
  const one = stack.use(await startInstance(first.directory, words('one')))
  const second = stack.use(await place())
  const { token } = await prepareJoin(first.directory, systemClock)
  await joinCluster({
    directory: second.directory,
    pinned: one.pin,
    ask: async (key) => {
      const { status, body } = await one.ask('POST', '/v1/instances', { token, key, name: 'two' })
      assert.equal(status, 200, JSON.stringify(body))
      return statusRoutes.join.output.parse(body).sealed
    },
  })
  const two = stack.use(await startInstance(second.directory, words('two')))
  assert.equal(two.pin, one.pin)
  await until(two.ask, '/v1/status', ({ state }) => state === 'running')
  const admin = await signInOver(one.ask)
  const disposable = stack.move()
  const again = () => startInstance(first.directory, words('one'))
  return { one, two, admin, again, [Symbol.asyncDispose]: () => disposable.disposeAsync() }
}

/** Enrolled over the API, connected to the instances in this order, and obedient. */
async function enrol(cluster: Cluster, name: string, urls: string[]): Promise<TestNode> {
  const { one, admin } = cluster
  const node = await new TestNode().openPort()
  const invite = await one.ask('POST', '/v1/invites', {}, admin)
  const body = {
    invite: invite.body.token,
    address: node.address,
    code: node.code,
    name,
    genesis: true,
  }
  const taken = await one.ask('POST', '/v1/enrolments', body, admin)
  assert.equal(taken.status, 200, JSON.stringify(taken.body))
  node.onInstruction = async (frame) => {
    if (frame.kind !== 'command') return
    // Not awaited: a result is kept until some coordinator has taken it in.
    void node.session?.deliver({ kind: 'result', command: frame.id, ok: true, data: {} })
  }
  await node.connect(...urls)
  await node.say(proven)
  return node
}

const url = ({ port }: Instance) => `https://127.0.0.1:${port}`

/** Gives commands until the count, moving to another instance when one is gone. Returns the acknowledged. */
async function order(
  asks: Ask[],
  admin: Record<string, string>,
  node: TestNode,
  count: number,
  onDone: () => void,
): Promise<string[]> {
  const acknowledged: string[] = []
  let at = 0
  for (let tried = 0; tried < count; tried += 1) {
    const path = `/v1/nodes/${node.id}/commands`
    try {
      const ask = asks[at % asks.length]
      assert.ok(ask)
      const { status, body } = await ask('POST', path, { command: 'rehearse' }, admin)
      if (status === 200) {
        acknowledged.push(String(body.id))
        onDone()
      } else {
        const { code } = body.error as { code: string }
        assert.equal(code, 'coordinator.storage_unreachable', JSON.stringify(body))
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      at += 1 // what a load balancer does
    }
  }
  return acknowledged
}

async function requireDone(ask: Ask, admin: Record<string, string>, ids: readonly string[]) {
  for (const id of ids) {
    for (let tried = 0; ; tried += 1) {
      const { body } = await ask('GET', `/v1/commands/${id}`, undefined, admin)
      if (body.state === 'done') break
      assert.ok(tried < 1200, `${id} is ${body.state}: ${JSON.stringify(body)}`)
      await systemClock.sleep(50)
    }
  }
}

async function requireIntact(location: string): Promise<void> {
  await using store = await openStore({ engine: 'postgresql', url: location })
  assert.equal((await verifyAudit(store.read)).intact, true)
}

test('an instance is killed under load: its agents go on at the other, and every order is carried out', async () => {
  await using server = await startPostgres()
  await using cluster = await twoInstances(server, [server.url])
  const { one, two, admin } = cluster
  const names = ['n1', 'n2', 'n3', 'n4']
  await using stack = new AsyncDisposableStack()
  const nodes = await Promise.all(names.map((name) => enrol(cluster, name, [url(one), url(two)])))
  for (const node of nodes) stack.use(node)
  const said: Promise<void>[] = []
  let given = 0
  const kill = () => {
    given += 1
    if (given !== 12) return
    // Told in the same moment: these are taken in by whichever instance is there.
    for (const node of nodes) said.push(node.say({ ...proven, uptimeSeconds: 99 }))
    one.running.kill('SIGKILL')
  }
  const asks = [one.ask, two.ask]
  const orders = await Promise.all(nodes.map((node) => order(asks, admin, node, 10, kill)))
  assert.equal(await one.running.ended, 137)
  const acknowledged = orders.flat()
  assert.ok(acknowledged.length >= 30, `${acknowledged.length} were acknowledged`)
  await Promise.all(said)
  await requireDone(two.ask, admin, acknowledged)
  for (const node of nodes)
    await node.until((state) => state.kind === 'open' && state.url === url(two))
  const listed = await until(two.ask, '/readyz', ({ ready }) => ready === true)
  assert.equal(listed.ready, true)
  for (const node of nodes) {
    const { body } = await two.ask('GET', `/v1/nodes/${node.id}`, undefined, admin)
    const { phase, connected, report } = body as {
      phase: string
      connected: boolean
      report: { uptimeSeconds: number }
    }
    assert.deepEqual([phase, connected, report.uptimeSeconds], ['open', true, 99])
  }
  await requireIntact(server.url)
})

test('the primary is killed under load: agents stay, and after the failover every order is carried out', async () => {
  await using server = await startPostgres()
  await using standby = await server.standby()
  await using cluster = await twoInstances(server, [server.url, standby.url])
  const { one, two, admin } = cluster
  await using first = await enrol(cluster, 'n1', [url(one), url(two)])
  await using second = await enrol(cluster, 'n2', [url(two), url(one)])
  const nodes = [first, second]
  let given = 0
  let crashed: Promise<void> | undefined
  const crash = () => {
    given += 1
    if (given === 8) crashed = server.crash()
  }
  const before = await Promise.all(
    nodes.map((node, at) => order([at === 0 ? one.ask : two.ask], admin, node, 12, crash)),
  )
  await crashed
  for (const { ask } of [one, two])
    await until(ask, '/v1/status', ({ reason }) => reason === 'storage_unreachable')
  await standby.promote()
  for (const { ask } of [one, two])
    await until(ask, '/v1/status', ({ state }) => state === 'running')
  const after = await Promise.all(
    nodes.map((node) => order([one.ask, two.ask], admin, node, 5, () => undefined)),
  )
  assert.equal(after.flat().length, 10)
  await requireDone(one.ask, admin, [...before.flat(), ...after.flat()])
  await requireIntact(standby.url)
})

test('a killed instance that comes back holds nobody twice', async () => {
  await using server = await startPostgres()
  await using cluster = await twoInstances(server, [server.url])
  const { one, two, admin } = cluster
  await using node = await enrol(cluster, 'n1', [url(one), url(two)])
  one.running.kill('SIGKILL')
  await one.running.ended
  await node.until((state) => state.kind === 'open' && state.url === url(two))
  const ids = await order([two.ask], admin, node, 3, () => undefined)
  await requireDone(two.ask, admin, ids)
  await using store = await openStore({ engine: 'postgresql', url: server.url })
  const held = async () =>
    (await store.read.selectFrom('nodes').select('instance').execute()).map(
      ({ instance }) => instance,
    )
  for (let tried = 0; tried < 1200 && (await held())[0] !== 'two'; tried += 1)
    await systemClock.sleep(50)
  await using again = await cluster.again()
  const more = await order([again.ask], admin, node, 3, () => undefined)
  await requireDone(again.ask, admin, more)
  assert.deepEqual(await held(), ['two'], 'an order given to either reaches the one that holds it')
})
