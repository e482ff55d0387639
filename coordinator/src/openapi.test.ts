import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AnyRoute, api, errorSchema } from '@holdfast/protocol'
import { TestNode } from './agents-fixture.ts'
import type { Ask, Reply } from './api-client-fixture.ts'
import { answer, claimOver, manifest, password, people, started } from './server-fixture.ts'

// Every route of the contract is served, described in the document, and answers as its schema says,
// with no member more. The same routes type the client, so what holds here holds for it.

const routes = Object.values(api).flatMap((group) => Object.values(group)) as unknown as AnyRoute[] // each is a route

interface Input {
  params?: Record<string, string>
  query?: string
  body?: unknown
  as?: Record<string, string>
}

/** The members of answers that are read here. */
interface Told {
  id: string
  token: string
  enrolment: string
  holder: string
  generation: number
  wrapped: string
  statement: string
  ways: { id: string }[]
  ceremony: { id: string }
  ceremonies: unknown[]
}

/** Calls routes and keeps account of those that answered. */
class Caller {
  readonly answered = new Set<string>()
  readonly #ask: Ask

  constructor(ask: Ask) {
    this.#ask = ask
  }

  async reply(route: unknown, input: Input = {}): Promise<Reply> {
    const { spec } = route as AnyRoute // the routes' own types differ in nothing that matters here
    const { params = {}, query = '', body, as } = input
    const path = spec.path.replaceAll(/\{(\w+)\}/g, (_all, name: string) => params[name] ?? '')
    return await this.#ask(spec.method.toUpperCase(), `${path}${query}`, body, as)
  }

  /** Calls a route that must succeed, and checks its answer to the last member. */
  async call(route: unknown, input: Input = {}): Promise<Told> {
    const { id, output } = route as AnyRoute
    const { status, body } = await this.reply(route, input)
    assert.equal(status, 200, `${id}: ${JSON.stringify(body)}`)
    assert.deepEqual(JSON.parse(JSON.stringify(output.parse(body))), body, id)
    this.answered.add(id)
    return body as unknown as Told // each test reads what it has just seen checked
  }

  /** Calls a route that answers in lines of JSON, and must succeed. */
  async lines(route: unknown, input: Input): Promise<void> {
    const { id } = route as AnyRoute
    const { status, text } = await this.reply(route, input)
    assert.equal(status, 200, `${id}: ${text}`)
    for (const line of text.split('\n').slice(0, -1))
      assert.equal(typeof JSON.parse(line), 'object')
    this.answered.add(id)
  }

  /** Calls a route that must be refused, with an error as the contract has it. */
  async refused(route: unknown, input: Input, code: string): Promise<void> {
    const { body } = await this.reply(route, input)
    assert.deepEqual(errorSchema.parse(body), body)
    assert.equal((body.error as { code: string }).code, code)
  }
}

const { status, ceremonies, keys, users, nodes } = api

async function throughTheStates(caller: Caller): Promise<void> {
  await caller.call(status.live)
  await caller.call(status.status)
  await caller.call(status.identity, { query: '?nonce=abcd' })
  await caller.call(ceremonies.list)
  await caller.refused(nodes.list, {}, 'coordinator.not_in_this_state')
}

async function answerBy(caller: Caller, id: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const pair = people[name]
    assert.ok(pair)
    const asked = await caller.call(ceremonies.request, { params: { id, holder: name } })
    const body = answer(name, pair.privateKey, { ...asked })
    await caller.call(ceremonies.answer, { params: { id }, body })
  }
}

async function keysAndManifest(caller: Caller, as: Record<string, string>): Promise<void> {
  const way = await caller.call(keys.add, { as, body: { kind: 'host-key', config: {} } })
  await caller.call(keys.prove, { as, params: { id: way.id } })
  await caller.call(keys.list, { as })
  await caller.call(keys.rotate, { as })
  const { ways } = await caller.call(keys.list, { as })
  const [first] = ways
  await caller.call(keys.remove, { as, params: { id: first?.id ?? '' } })
  const wanted = { ...manifest, users: twoAdmins, twoPersonRule: true }
  await caller.call(api.manifest.check, { as, body: { manifest: wanted } })
  const { ceremony } = await caller.call(api.manifest.set, { as, body: { manifest: wanted } })
  await answerBy(caller, ceremony.id, ['alice', 'bob'])
  await caller.call(api.manifest.get, { as })
  await caller.call(api.manifest.history, { as })
  await caller.lines(keys.backup, { as })
}

const twoAdmins = {
  root: { roles: ['admin', 'operator', 'auditor'] },
  second: { roles: ['operator'] },
}

async function holdersAndCeremonies(caller: Caller, as: Record<string, string>): Promise<void> {
  const other = { ...manifest, users: twoAdmins, approvals: 1 }
  const opened = await caller.call(ceremonies.open, {
    as,
    body: { kind: 'manifest', manifest: other },
  })
  const params = { id: opened.id }
  await caller.call(ceremonies.get, { params })
  await caller.refused(
    ceremonies.open,
    { body: { kind: 'manifest', manifest: other } },
    'user.not_signed_in',
  )
  await caller.call(ceremonies.cancel, { as, params })
  await caller.refused(ceremonies.cancel, { as, params }, 'ceremony.not_open')
  const share = await caller.call(ceremonies.share, { params: { name: 'carol' } })
  assert.deepEqual([share.holder, share.generation], ['carol', 3])
  await caller.refused(ceremonies.share, { params: { name: 'nobody' } }, 'ceremony.holder_unknown')
  const asked = await caller.call(ceremonies.challenge, { params: { name: 'carol' } })
  const carol = people.carol
  assert.ok(carol)
  const body = answer('carol', carol.privateKey, { ...asked })
  await caller.call(ceremonies.prove, { params: { name: 'carol' }, body })
  const listed = await caller.call(ceremonies.list)
  assert.equal(listed.ceremonies.length, 2, 'challenges are no ceremonies')
}

async function usersAndTokens(caller: Caller, as: Record<string, string>): Promise<void> {
  await caller.call(users.list, { as })
  const made = await caller.call(users.createToken, {
    as,
    body: { label: 'x', scopes: ['admin'] },
  })
  await caller.call(users.tokens, { as })
  await caller.call(users.revokeToken, { as, params: { id: made.id } })
  await caller.call(users.audit, { as, query: '?after=2&limit=5' })
  await caller.call(users.verifyAudit, { as })
  await caller.refused(users.audit, { as, query: '?limit=0' }, 'api.request_invalid')
}

async function nodesAndCommands(
  caller: Caller,
  as: Record<string, string>,
  second: Record<string, string>,
): Promise<void> {
  const spare = await caller.call(nodes.invite, { as, body: { domain: 'rack-1' } })
  await caller.call(nodes.revokeInvite, { as, params: { id: spare.id } })
  const { token } = await caller.call(nodes.invite, { as, body: { label: 'web' } })
  await caller.call(nodes.invites, { as })
  await using node = await new TestNode().openPort()
  const { code, address } = node
  const body = { invite: token, address, code, name: 'web-1', genesis: true }
  const { enrolment } = await caller.call(nodes.enrol, { as, body })
  await caller.call(nodes.enrolment, { as, params: { id: enrolment } })
  const params = { node: node.id }
  await caller.call(nodes.list, { as })
  await caller.call(nodes.get, { as, params })
  await caller.call(nodes.reshares, { as })
  await caller.call(nodes.command, { as, params, body: { command: 'status' } })
  const reset = { command: 'reset', confirmation: 'web-1' }
  const { id } = await caller.call(nodes.command, { as, params, body: reset })
  await caller.call(nodes.approve, { as: second, params: { id: id } })
  await caller.call(nodes.commands, { as, params })
  await caller.call(nodes.commandState, { as, params: { id: id } })
  await caller.call(nodes.freeze, { as, params, body: { reason: 'lost' } })
  await caller.call(nodes.unfreeze, { as, params })
  await caller.call(nodes.remove, { as, params })
  await caller.refused(nodes.get, { as, params }, 'node.unknown')
}

test('every route answers as the contract says, and the document has each of them', async () => {
  await using here = await started()
  await using running = await here.start({ limits: { all: 1e6, open: 1e6, logins: 1e6 } })
  const caller = new Caller(running.ask)
  await throughTheStates(caller)
  const token = await here.token()
  await caller.call(status.claim, { body: { token, user: 'root', password } })
  await caller.call(users.login, { body: { user: 'root', password } })
  const as = await signedIn(caller, 'root')
  await caller.call(status.ready)
  const [carol] = Object.values(manifest.holders.keys)
  const joining = { token: 'x', name: 'two', key: carol }
  await caller.refused(status.join, { body: joining }, 'coordinator.join_refused')
  await keysAndManifest(caller, as)
  await holdersAndCeremonies(caller, as)
  await caller.call(users.set, { as, params: { name: 'second' }, body: { password } })
  const second = await signedIn(caller, 'second')
  await usersAndTokens(caller, as)
  await nodesAndCommands(caller, as, second)
  await caller.call(status.status)
  await caller.call(users.logout, { as: second })
  await caller.call(keys.seal, { as })
  await caller.call(status.status)
  assert.equal((await caller.reply(status.ready)).status, 503)
  const unanswered = routes.map(({ id }) => id).filter((id) => !caller.answered.has(id))
  // SQLite serves one instance; instances-agents.test.ts joins another one on PostgreSQL.
  assert.deepEqual(unanswered, ['joinCluster'])
  await checkDocument(running.ask)
})

async function signedIn(caller: Caller, user: string): Promise<Record<string, string>> {
  const { cookie, body } = await caller.reply(users.login, { body: { user, password } })
  return { cookie, 'x-csrf-token': String(body.csrf) }
}

interface Operation {
  operationId: string
  summary: string
  responses: Record<string, { content: Record<string, { schema: object }> }>
}

async function checkDocument(ask: Ask): Promise<void> {
  const { body } = await ask('GET', '/v1/openapi.json')
  const paths = body.paths as Record<string, Record<string, Operation>>
  const told = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, each]) => ({ path, method, ...each })),
  )
  const name = ({ path, method, id }: { path: string; method: string; id: string }) =>
    `${method} ${path} ${id}`
  assert.deepEqual(
    told.map(({ path, method, operationId }) => name({ path, method, id: operationId })).sort(),
    routes.map(({ id, spec }) => name({ path: spec.path, method: spec.method, id })).sort(),
  )
  for (const { operationId, summary, responses } of told) {
    assert.ok(summary.length > 5, operationId)
    const media = operationId === 'backup' ? 'application/x-ndjson' : 'application/json'
    assert.ok(responses['200']?.content[media]?.schema, operationId)
    assert.ok(responses.default?.content['application/json']?.schema, operationId)
  }
}

test('the document does not change from one request to the next', async () => {
  await using here = await started()
  await using running = await here.start()
  await claimOver(running.ask, await here.token())
  const [one, two] = [
    await running.ask('GET', '/v1/openapi.json'),
    await running.ask('GET', '/v1/openapi.json'),
  ]
  assert.deepEqual(one.body, two.body)
  assert.equal(one.body.openapi, '3.1.0')
})
