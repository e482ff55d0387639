import assert from 'node:assert/strict'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseJsonObject, startProgram, systemClock } from '@holdfast/base'
import { createPins } from '@holdfast/seal'
import { instanceOf, order, proven, TestNode, tomorrow, until, world } from './agents-fixture.ts'
import { verifyAudit } from './audit.ts'
import { Coordinator } from './coordinator.ts'
import { enrolmentDeps } from './enrolment-deps.ts'
import { enrolNode } from './enrolment-driver.ts'
import { enrolmentPatience, expireEnrolments } from './enrolments.ts'
import { filePin } from './file-pin.ts'
import { listInvites } from './invites.ts'
import { forever } from './leases.ts'
import { openStore, type Store } from './store.ts'

// An enrolment with the coordinator's process killed at every durable write and on both sides of every
// commit. Either the node has accepted, and its reports finish the enrolment, or it has not: then what
// was reserved for it comes back by itself, and the same invite enrols it. Never both, never neither.

const program = fileURLToPath(new URL('crash-reshare-fixture.ts', import.meta.url))
const mostEffects = 60

interface Attempt {
  directory: string
  node: TestNode
  invite: string
}

/** A claimed coordinator with an invite for one node. */
async function prepared(base: string): Promise<string> {
  await using here = await world({}, undefined, tomorrow())
  const { token } = await here.invite()
  await here.first[Symbol.asyncDispose]()
  await here.coordinator[Symbol.asyncDispose]()
  await cp(here.directory, base, { recursive: true })
  return token
}

async function stateOf(store: Store): Promise<string | undefined> {
  const rows = await store.read
    .selectFrom('enrolments')
    .select('state')
    .orderBy('created')
    .execute()
  return rows.map(({ state }) => state).join()
}

/** Enrols in a process that is killed at this effect; false when it came to the end before. */
async function killAt({ directory, node, invite }: Attempt, at: number): Promise<boolean> {
  const file = join(directory, 'order.json')
  await writeFile(file, JSON.stringify(order(node, invite, 'web-1')), { mode: 0o600 })
  const { running, line } = await startProgram(
    process.execPath,
    [program, directory, String(at), file],
    (text) => text.includes('"ready"'),
    { readyWithin: 60_000 },
  )
  await using _running = running
  let killed = false
  void running.ended.then(() => {
    killed = true
  })
  const { port } = parseJsonObject(line, 'the first line')
  await until(() => killed || node.enrolment !== undefined, 'an end, or that the node accepts')
  if (node.enrolment === undefined) return true
  await using store = await openStore({ engine: 'sqlite', path: join(directory, 'state.db') })
  void node
    .connect(`https://127.0.0.1:${port}`)
    .then(() => node.say(proven))
    .catch(() => undefined) // killed on the way
  await until(async () => killed || (await stateOf(store)) === 'enrolled', 'an end')
  return killed
}

/** The next process, which is this one: later by what a reservation lasts, if there is one. */
async function goOn({ directory, node, invite }: Attempt): Promise<void> {
  let later = 0
  const clock = { ...systemClock, now: () => systemClock.now() + later }
  await using coordinator = await Coordinator.start({
    ...{ directory, store: { engine: 'sqlite', path: join(directory, 'state.db') } },
    pins: createPins({ extra: [filePin(directory)] }), // the host key has moved with the directory
    clock,
  })
  const { store } = coordinator
  await using instance = await instanceOf(coordinator, clock, 'one')
  if (node.enrolment === undefined) {
    later = enrolmentPatience + 1_000
    await expireEnrolments(store, clock)
    await node.openPort()
    const deps = enrolmentDeps(coordinator, clock, [instance.url])
    await enrolNode(deps, order(node, invite, 'web-1'), 'user:ada')
  }
  await node.session?.[Symbol.asyncDispose]()
  node.state = undefined
  await node.connect(instance.url)
  await node.say(proven)
  await until(async () => (await stateOf(store))?.endsWith('enrolled') === true, 'enrolled')
  await requireOne(store, node)
}

/** One node, one address, one use of the invite; nothing reserved is left. */
async function requireOne(store: Store, node: TestNode): Promise<void> {
  assert.match((await stateOf(store)) ?? '', /^(failed,)?enrolled$/)
  const nodes = await store.read.selectFrom('nodes').select(['node', 'name']).execute()
  assert.deepEqual(
    nodes.map((row) => [row.node, row.name]),
    [[node.id, 'web-1']],
  )
  const leases = await store.read.selectFrom('leases').selectAll().execute()
  assert.deepEqual(
    leases.map((lease) => [lease.node, lease.until]),
    [[node.id, forever]],
  )
  const invites = await listInvites(store.read)
  assert.deepEqual(
    invites.map(({ uses, used, reserved }) => [uses, used, reserved]),
    [[1, 1, 0]],
  )
  assert.equal((await verifyAudit(store.read)).intact, true)
}

test('an enrolment in which the coordinator is killed anywhere ends once, or not at all', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-enrolment-crash-'))
  const base = join(root, 'base')
  try {
    const invite = await prepared(base)
    const ends = { accepted: 0, not: 0 }
    let at = 1
    for (; at <= mostEffects; at += 1) {
      const directory = join(root, 'work')
      await rm(directory, { recursive: true, force: true })
      await cp(base, directory, { recursive: true })
      await using node = await new TestNode().openPort()
      const attempt = { directory, node, invite }
      try {
        const killed = await killAt(attempt, at)
        ends[node.enrolment === undefined ? 'not' : 'accepted'] += 1
        await goOn(attempt)
        if (!killed) break
      } catch (cause) {
        throw new Error(`killed at effect ${at}`, { cause })
      }
    }
    t.diagnostic(`${at - 1} effects, ${JSON.stringify(ends)}`)
    assert.ok(at <= mostEffects, 'every effect was tried')
    assert.ok(ends.accepted > 1 && ends.not > 1, JSON.stringify(ends))
  } finally {
    await rm(root, { recursive: true })
  }
})
