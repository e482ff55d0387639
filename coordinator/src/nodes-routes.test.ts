import assert from 'node:assert/strict'
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '@holdfast/base'
import {
  certificateRequest,
  type EnrolmentPort,
  keyId,
  openEnrolmentPort,
  serverTls,
} from '@holdfast/link'
import { nodeRoutes, type Role } from '@holdfast/protocol'
import type { Enrolment } from '@holdfast/protocol/frames'
import { createPins } from '@holdfast/seal'
import { Agents } from './agents.ts'
import { startDuties } from './agents-duties.ts'
import { Coordinator } from './coordinator.ts'
import { filePin } from './file-pin.ts'
import { proposeManifest } from './manifests.ts'
import { createApp } from './mount.ts'
import { mountNodes, publishManifest } from './nodes-routes.ts'
import { RateLimits } from './rate-limits.ts'
import { createToken, putUser } from './users.ts'

const p256 = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const pem = (key: KeyObject) =>
  createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()
const holder = generateKeyPairSync('rsa', { modulusLength: 3072 }).publicKey
const manifest = {
  version: 1,
  cluster: 'fleet',
  holders: {
    threshold: 1,
    keys: { alice: holder.export({ type: 'spki', format: 'pem' }).toString() },
  },
  users: { ada: { roles: ['operator'] }, bob: { roles: ['admin'] }, eve: { roles: ['auditor'] } },
  twoPersonRule: true,
}

/** Members of replies that are read before the contract's schema has parsed them. */
interface Body {
  token: string
  error: { code: string; hint: string }
}

async function world() {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-routes-'))
  const clock = systemClock
  const coordinator = await Coordinator.start({
    directory,
    store: { engine: 'sqlite', path: join(directory, 'state.db') },
    pins: createPins({ extra: [filePin()] }),
    clock,
  })
  const { store } = coordinator
  await coordinator.claim(
    await readFile(join(directory, 'claim-token'), 'utf8'),
    'fleet',
    async () => undefined,
  )
  const cluster = () => coordinator.header?.cluster ?? ''
  await proposeManifest(coordinator, { store, clock, cluster }, manifest, 'user:root')
  const server = createServer(serverTls(coordinator.identity, coordinator.header?.authority))
  const agents = await Agents.start({ coordinator, server, clock, instance: 'one' })
  const failures: unknown[] = []
  const duties = startDuties({ agents, store, clock, onError: (error) => failures.push(error) })
  const app = createApp()
  mountNodes(app, {
    coordinator,
    clock,
    limits: new RateLimits(clock, { all: 10_000, open: 10_000, logins: 10_000 }),
    origins: [],
    agents: () => agents,
    coordinators: ['https://192.0.2.1:8443'],
  })
  const as = async (user: string, roles: Role[]) => {
    await store.write((work) => putUser(work, user, roles))
    const caller = { user, roles, via: 'session' as const, csrf: '' }
    const { token } = await createToken(store, clock, caller, { label: '', scopes: roles, days: 1 })
    return async (method: string, path: string, body?: unknown) => {
      const init = {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }
      const reply = await app.request(`https://coordinator${path}`, init, {})
      const told = (await reply.json()) as Body // each test reads only what its route replies
      return { status: reply.status, body: told }
    }
  }
  return {
    coordinator,
    agents,
    failures,
    ada: await as('ada', ['operator']),
    bob: await as('bob', ['admin']),
    eve: await as('eve', ['auditor']),
    [Symbol.asyncDispose]: async () => {
      await duties[Symbol.asyncDispose]()
      await agents[Symbol.asyncDispose]()
      await coordinator[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
}

async function node() {
  const identity = p256()
  let code = ''
  const accepted: Enrolment[] = []
  const port: EnrolmentPort = await openEnrolmentPort({
    host: '127.0.0.1',
    port: 0,
    identity,
    card: {
      node: keyId(identity),
      identity: pem(identity),
      exchange: pem(p256()),
      wireguard: '',
      certificateRequest: await certificateRequest(identity),
      ports: { peer: 9_998, wireguard: 51_820 },
      device: { path: '/dev/sda', bytes: 1_000_000_000, header: 'none' },
    },
    onCode: (text) => {
      code = text
    },
    onEnrolment: async (enrolment) => {
      accepted.push(enrolment)
    },
  })
  return {
    id: keyId(identity),
    accepted,
    order: (invite: string) => ({
      invite,
      address: `127.0.0.1:${port.port}`,
      code,
      name: 'web-1',
      genesis: true,
    }),
    [Symbol.asyncDispose]: () => port[Symbol.asyncDispose](),
  }
}

test('an operator invites and enrols a node, and what comes back keeps the contract', async () => {
  await using here = await world()
  await using machine = await node()
  const invited = await here.ada('POST', '/v1/invites', { label: 'rack 7', domain: 'rack-7' })
  assert.equal(invited.status, 200)
  const { token, id } = nodeRoutes.invite.output.parse(invited.body)
  const begun = await here.ada('POST', '/v1/enrolments', machine.order(token))
  assert.equal(begun.status, 200)
  const { enrolment, node: enrolledId } = nodeRoutes.enrol.output.parse(begun.body)
  assert.equal(enrolledId, machine.id)
  assert.deepEqual(machine.accepted[0]?.coordinators, ['https://192.0.2.1:8443'])
  const state = await here.ada('GET', `/v1/enrolments/${enrolment}`)
  assert.equal(nodeRoutes.enrolment.output.parse(state.body).state, 'sent')
  const { invites } = nodeRoutes.invites.output.parse((await here.eve('GET', '/v1/invites')).body)
  assert.deepEqual(
    invites.map((invite) => [invite.id, invite.used, invite.reserved, invite.domain]),
    [[id, 0, 1, 'rack-7']],
  )
  const again = await here.ada('POST', '/v1/enrolments', machine.order(token))
  assert.deepEqual([again.status, again.body.error.code], [403, 'invite.used_up'])
  const { nodes } = nodeRoutes.list.output.parse((await here.eve('GET', '/v1/nodes')).body)
  assert.deepEqual(
    nodes.map(({ name, phase, connected, domain }) => [name, phase, connected, domain]),
    [['web-1', 'enrolling', false, 'rack-7']],
  )
  assert.equal((await here.bob('DELETE', `/v1/invites/${id}`)).status, 200)
  assert.deepEqual(here.failures, [])
})

test('roles decide who may invite, command and remove', async () => {
  await using here = await world()
  await using machine = await node()
  const { body } = await here.ada('POST', '/v1/invites', {})
  assert.equal((await here.eve('POST', '/v1/invites', {})).status, 403)
  assert.equal((await here.eve('POST', '/v1/enrolments', machine.order(body.token))).status, 403)
  await here.ada('POST', '/v1/enrolments', machine.order(body.token))
  const path = `/v1/nodes/${machine.id}`
  assert.equal((await here.eve('POST', `${path}/commands`, { command: 'status' })).status, 403)
  assert.equal((await here.ada('DELETE', path)).status, 403)
  assert.equal((await here.ada('DELETE', `${path}/freezes`)).status, 403)
  assert.equal((await here.bob('DELETE', path)).status, 200)
  assert.equal((await here.bob('GET', path)).status, 404)
})

test('a reset needs the name and somebody else, and everything stands in the audit log', async () => {
  await using here = await world()
  await using machine = await node()
  const { body } = await here.ada('POST', '/v1/invites', {})
  await here.ada('POST', '/v1/enrolments', machine.order(body.token))
  const path = `/v1/nodes/${machine.id}`
  const bare = await here.ada('POST', `${path}/commands`, { command: 'reset' })
  assert.deepEqual([bare.status, bare.body.error.code], [403, 'command.confirmation_needed'])
  assert.match(bare.body.error.hint, /web-1/)
  const confirmed = { command: 'reset', confirmation: 'web-1' }
  const ordered = await here.ada('POST', `${path}/commands`, confirmed)
  const command = nodeRoutes.command.output.parse(ordered.body)
  assert.equal(command.state, 'confirm')
  const own = await here.ada('POST', `/v1/commands/${command.id}/approvals`)
  assert.equal(own.body.error.code, 'command.same_person')
  const approved = await here.bob('POST', `/v1/commands/${command.id}/approvals`)
  assert.equal(nodeRoutes.approve.output.parse(approved.body).state, 'waiting')
  const { commands } = nodeRoutes.commands.output.parse(
    (await here.eve('GET', `${path}/commands`)).body,
  )
  assert.deepEqual(
    commands.map(({ id }) => id),
    [command.id],
  )
  assert.equal((await here.eve('GET', `/v1/commands/${command.id}`)).status, 200)
  assert.equal((await here.ada('POST', `${path}/freezes`, { reason: 'stolen' })).status, 200)
  const shown = nodeRoutes.get.output.parse((await here.eve('GET', path)).body)
  assert.equal(shown.frozen, true)
  const log = await here.coordinator.store.read
    .selectFrom('audit')
    .select(['actor', 'action'])
    .execute()
  const told = log.map(({ actor, action }) => `${actor} ${action}`)
  for (const line of [
    'user:ada invite.create',
    'user:ada enrolment.begin',
    'user:ada command.reset',
    'user:bob command.approve',
    'user:ada node.freeze',
  ])
    assert.ok(told.includes(line), line)
})

test("agents' part of the manifest and the freeze list are published once per manifest", async () => {
  await using here = await world()
  await publishManifest(here.coordinator, here.agents)
  await publishManifest(here.coordinator, here.agents)
  const rows = await here.coordinator.store.read
    .selectFrom('documents')
    .selectAll()
    .orderBy('version')
    .execute()
  assert.deepEqual(
    rows.map(({ name }) => name),
    ['policy', 'freeze'],
  )
  const [policy, freeze] = rows.map(({ version }) => version)
  assert.equal(freeze, (policy ?? 0) + 1, 'each was published once')
  assert.equal(JSON.parse(rows[0]?.body ?? '').twoPersonRule, true)
})

/** Four nodes that guard each other, each with two of three; all of them connected elsewhere. */
async function four(here: Awaited<ReturnType<typeof world>>): Promise<string[]> {
  const ids = ['a', 'b', 'c', 'd'].map((letter) => letter.repeat(43))
  const now = systemClock.now()
  const rows = ids.map((id) => ({
    ...{ node: id, name: `node-${id[0]}`, address: '192.0.2.1', identity: '', exchange: '' },
    ...{ wireguard: '', certificate: '', phase: 'open', epoch: 1, threshold: 2, frozen: 0 },
    ...{ ports: '{"peer":9998,"wireguard":51820}', witnessed: 0, instance: 'two', heard_at: now },
    guardians: JSON.stringify(ids.filter((other) => other !== id)),
  }))
  await here.coordinator.store.write((work) => work.insertInto('nodes').values(rows).execute())
  return ids
}

test('a reboot below the margin is refused with names, and done when somebody insists', async () => {
  await using here = await world()
  const [a, b, c, d] = await four(here)
  const path = `/v1/nodes/${a}/commands`
  const refused = await here.ada('POST', path, { command: 'reboot' })
  assert.deepEqual([refused.status, refused.body.error.code], [403, 'node.needed'])
  const { details } = refused.body.error as unknown as {
    details: { stranded: { node: string }[] }
  }
  assert.deepEqual(details.stranded.map((each) => each.node).sort(), [b, c, d])
  const leave = { command: 'leave', confirmation: 'node-a' }
  assert.equal((await here.ada('POST', path, leave)).body.error.code, 'node.needed')
  const arguments_ = await here.ada('POST', path, { command: 'reboot', arguments: { now: true } })
  assert.deepEqual(
    [arguments_.status, arguments_.body.error.code],
    [400, 'command.arguments_invalid'],
  )
  const forced = await here.ada('POST', path, { command: 'reboot', arguments: { force: true } })
  const command = nodeRoutes.command.output.parse(forced.body)
  assert.equal(command.progress, 'too few guardians are left for node-b, node-c, node-d')
})

test('one operator alone makes no node leave, and the second is told whom it strands', async () => {
  await using here = await world()
  const [a] = await four(here)
  const insisted = { command: 'leave', confirmation: 'node-a', arguments: { force: true } }
  const ordered = await here.ada('POST', `/v1/nodes/${a}/commands`, insisted)
  const { id, state, progress } = nodeRoutes.command.output.parse(ordered.body)
  assert.equal(state, 'confirm')
  assert.match(progress ?? '', /node-b, node-c, node-d/)
  const path = `/v1/commands/${id}/approvals`
  assert.equal((await here.ada('POST', path)).body.error.code, 'command.same_person')
  const approved = nodeRoutes.approve.output.parse((await here.bob('POST', path)).body)
  assert.notEqual(approved.state, 'confirm')
  assert.match(approved.progress ?? '', /node-b, node-c, node-d/)
})

test('who moves to other guardians, and who has too few, is shown', async () => {
  await using here = await world()
  const [a = '', b = '', c = '', d = ''] = await four(here)
  const { store } = here.coordinator
  const since = systemClock.now()
  const row = {
    ...{ id: 'r'.repeat(22), ward: a, cause: 'join', state: 'ordered', epoch: 2, threshold: 2 },
    ...{ guardians: JSON.stringify([b, c]), order: '[]', created: since, since, blamed: '[]' },
  }
  await store.write((work) => work.insertInto('reshares').values(row).execute())
  await store.write((work) =>
    work.updateTable('nodes').set({ instance: null }).where('node', '=', b).execute(),
  )
  const all = nodeRoutes.reshares.output.parse((await here.eve('GET', '/v1/reshares')).body)
  assert.deepEqual(all.belowMargin.sort(), [a, c, d])
  const moving = { state: 'ordered', cause: 'join', epoch: 2, since }
  assert.deepEqual(all.reshares, [{ node: a, guardians: [b, c], ...moving }])
  const shown = nodeRoutes.get.output.parse((await here.eve('GET', `/v1/nodes/${a}`)).body)
  assert.deepEqual(shown.reshare, moving)
  const { nodes } = nodeRoutes.list.output.parse((await here.eve('GET', '/v1/nodes')).body)
  assert.deepEqual(
    nodes.filter(({ reshare }) => reshare !== undefined).map((each) => each.node),
    [a],
  )
})

test('a freeze that no guardian would be told of is refused', async () => {
  await using here = await world()
  const { store } = here.coordinator
  const node = 'n'.repeat(43)
  const row = { node, name: 'web', address: '192.0.2.1', identity: '', exchange: '', wireguard: '' }
  const state = { certificate: '', phase: 'open', epoch: 0, threshold: 0, guardians: '[]' }
  const rest = { frozen: 0, ports: '{}', witnessed: 0 }
  await store.write((work) =>
    work
      .insertInto('nodes')
      .values({ ...row, ...state, ...rest })
      .execute(),
  )
  const asked = here.ada('POST', `/v1/nodes/${node}/freezes`, { reason: 'stolen' })
  here.coordinator.seal() // the request has been let in by now
  const { status, body } = await asked
  assert.deepEqual([status, body.error?.code], [503, 'coordinator.data_key_sealed'])
  const { frozen } = await store.read.selectFrom('nodes').select('frozen').executeTakeFirstOrThrow()
  assert.equal(frozen, 0)
})
