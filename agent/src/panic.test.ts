import assert from 'node:assert/strict'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { run, Secret } from '@holdfast/base'
import { type LockedState, lockedStateSchema } from '@holdfast/protocol/locked-state'
import { open } from '@holdfast/seal'
import { listBackups, luksType, readUuid, restoreHeader } from '@holdfast/vault'
import { type AgentLab, agentLab } from './agent-lab.ts'
import type { Agent } from './agent-options.ts'
import { isReceiptOf, type SignedReceipt } from './receipt.ts'

// Real volumes, a real coordinator's session, and operators at the peer port.

async function look(lab: AgentLab, node: string): Promise<LockedState> {
  const { status, body } = await lab.peer(node, '/v1/state')
  assert.equal(status, 200, JSON.stringify(body))
  return lockedStateSchema.parse(body)
}

/** What operators do: the holders open what the node shows, and one of them pushes it. */
async function push(lab: AgentLab, node: string) {
  const { recovery, exchange } = await look(lab, node)
  using passphrase = await open(lab.holderPins(), recovery[0]?.sealed ?? '')
  const sealed = await lab.sealFor(exchange, passphrase)
  return { sealed, ...(await lab.peer(node, '/v1/unlock', { sealed })) }
}

async function pushWrong(lab: AgentLab, node: string) {
  using wrong = Secret.copy('not the passphrase')
  const sealed = await lab.sealFor((await look(lab, node)).exchange, wrong)
  const { status, body } = await lab.peer(node, '/v1/unlock', { sealed })
  return { status, code: (body as { error: { code: string } }).error.code } // as it is refused
}

async function enrolled(lab: AgentLab): Promise<Agent> {
  const agent = await lab.start()
  await lab.enrol(true)
  await lab.until('it is enrolled', () =>
    agent.state.phase === 'open' && agent.state.task === undefined ? true : undefined,
  )
  return agent
}

async function ended(lab: AgentLab, agent: Agent, id: string): Promise<SignedReceipt> {
  const { ok, data, message } = await lab.resultOf(id)
  assert.equal(ok, true, message)
  const signed = data as SignedReceipt // as the agent sends it
  assert.ok(isReceiptOf(agent.node, signed), 'the receipt is signed by the node')
  assert.ok(!isReceiptOf(agent.node, { ...signed, receipt: { ...signed.receipt, what: 'left' } }))
  return signed
}

/** The fingerprint of the volume key: the same as long as the data can be read. */
async function volumeKey(device: string): Promise<unknown> {
  const { stdout } = await run('cryptsetup', ['luksDump', '--dump-json-metadata', device])
  return (JSON.parse(stdout.toString('utf8')) as { digests: { 0: { digest: string } } }).digests[0]
    .digest // cryptsetup's own format
}

test("a locked node shows how it stands and takes the holders' key at its peer port", async () => {
  await using lab = await agentLab()
  const first = await enrolled(lab)
  assert.equal((await look(lab, first.node)).phase, 'open')
  await first[Symbol.asyncDispose]()
  await rm(join(lab.options.runtimeDirectory, 'temporary-key')) // the power was cut
  await using agent = await lab.start()
  const state = await look(lab, agent.node)
  assert.deepEqual([state.phase, state.wrongKeys, state.held], ['locked', 0, undefined])
  assert.match(state.needs.join(), /--genesis/)
  assert.ok(!JSON.stringify(state).includes('PRIVATE'))

  assert.deepEqual(await pushWrong(lab, agent.node), {
    status: 403,
    code: 'vault.passphrase_wrong',
  })
  assert.equal((await look(lab, agent.node)).wrongKeys, 1)
  const junk = await lab.peer(agent.node, '/v1/unlock', { sealed: 'a.b.c.d.e' })
  assert.match(JSON.stringify(junk.body), /agent.key_malformed/)
  assert.equal((await lab.peer(agent.node, '/v1/unlock', { key: 1 })).status, 400)
  assert.equal((await lab.peer(agent.node, '/peer/nonce')).status, 403)

  const { status, body } = await push(lab, agent.node)
  assert.equal(status, 200, JSON.stringify(body))
  assert.equal(agent.state.phase, 'open')
  // Six a minute, however long each of them takes here.
  const codes: string[] = []
  while (!codes.includes('agent.push_rate') && codes.length < 20)
    codes.push((await pushWrong(lab, agent.node)).code)
  assert.ok(codes.includes('agent.push_rate'), codes.join())
  assert.equal(agent.state.phase, 'open')
})

test('panic 1 keeps a node shut over a restart, until an operator opens it; a replay does not', async () => {
  await using lab = await agentLab()
  const agent = await enrolled(lab)
  const plan = await lab.resultOf(await lab.command('panic', { level: 1, dryRun: true }))
  assert.match(JSON.stringify(plan.data?.plan), /the header with all keyslots/)
  assert.equal(agent.state.phase, 'open')

  const signed = await ended(lab, agent, await lab.command('panic', { level: 1 }))
  assert.equal(signed.receipt.what, 'locked')
  await lab.until('it rests', () => (agent.state.task === undefined ? true : undefined))
  assert.equal(agent.state.phase, 'locked')
  await agent[Symbol.asyncDispose]()

  // Its temporary key is still in memory: without being held it would open.
  await using again = await lab.start()
  const held = await lab.until('it is connected', () => lab.reports.findLast(({ held }) => held))
  assert.equal(held.phase, 'locked')
  assert.equal(again.state.phase, 'locked')
  const opened = await push(lab, again.node)
  assert.equal(opened.status, 200, JSON.stringify(opened.body))
  assert.deepEqual([again.state.phase, again.state.held], ['open', undefined])

  await ended(lab, again, await lab.command('panic', { level: 1 }))
  await lab.until('it rests again', () => (again.state.task === undefined ? true : undefined))
  const replayed = await lab.peer(again.node, '/v1/unlock', { sealed: opened.sealed })
  assert.match(JSON.stringify(replayed.body), /agent.push_replayed/)
  assert.equal(again.state.phase, 'locked')
})

test('panic 2 destroys keys and identity; the holders bring the data back to a new identity', async () => {
  await using lab = await agentLab()
  const agent = await enrolled(lab)
  // It has a way of the same epoch as the one that it will be given after its return.
  const earlier = [await lab.fleet.guardian(), await lab.fleet.guardian()]
  assert.equal((await lab.resultOf(await lab.reshare(earlier, 1))).ok, true)
  await lab.until('it rests', () => (agent.state.task === undefined ? true : undefined))
  const before = await volumeKey(lab.device)
  const uuid = await readUuid({ device: lab.device })
  const signed = await ended(lab, agent, await lab.command('panic', { level: 2 }))
  assert.equal(signed.receipt.what, 'wiped')
  await lab.until('it has forgotten', () =>
    lab.events.find(({ kind }) => kind === 'forgotten') ? true : undefined,
  )
  await agent[Symbol.asyncDispose]()
  assert.equal(await luksType({ device: lab.device }), undefined)
  const left = await readdir(lab.options.directory)
  assert.deepEqual(left.sort(), ['lock', 'panic', 'receipts', 'vaults'])

  lab.events.length = 0
  // A new machine; and what the holders can bring back is not formatted over.
  const stranger = await lab.start()
  assert.notEqual(stranger.node, agent.node)
  await assert.rejects(lab.enrol(true), { message: /holders can bring it back/ })
  await stranger[Symbol.asyncDispose]()

  const stateDirectory = lab.options.directory
  const deps = { pins: lab.holderPins(), stateDirectory }
  const { backups } = await listBackups(stateDirectory, uuid)
  const backup = backups.at(-1)
  assert.ok(backup !== undefined)
  await restoreHeader(deps, { device: lab.device }, backup)
  assert.deepEqual(await volumeKey(lab.device), before)

  lab.events.length = 0
  await using back = await lab.start()
  await lab.enrol(false)
  const guardians = [await lab.fleet.guardian(), await lab.fleet.guardian()]
  const order = await lab.reshare(guardians, 1)
  await lab.until('it waits for the holders', () =>
    back.state.task?.step === 'adopt' ? true : undefined,
  )
  assert.match((await look(lab, back.node)).needs.join(), /holders/)
  const { status, body } = await push(lab, back.node)
  assert.equal(status, 200, JSON.stringify(body))
  const moved = await lab.resultOf(order)
  assert.equal(moved.ok, true, moved.message)
  const ways = (await back.report()).ways.map(({ purpose, label }) => `${purpose} ${label}`.trim())
  assert.deepEqual(ways, ['recovery', 'automatic epoch 1'])
  assert.deepEqual(await volumeKey(lab.device), before)
})

test('panic 3 leaves nothing that brings the data back; the machine can serve anew', async () => {
  await using lab = await agentLab()
  const agent = await enrolled(lab)
  const before = await volumeKey(lab.device)
  const uuid = await readUuid({ device: lab.device })
  const plan = await lab.resultOf(await lab.command('panic', { level: 3, dryRun: true }))
  assert.ok(!JSON.stringify(plan.data?.plan).includes('wayBack'))
  const signed = await ended(lab, agent, await lab.command('panic', { level: 3 }))
  assert.equal((signed.receipt.vault as { level: number }).level, 3)
  await lab.until('it has forgotten', () =>
    lab.events.find(({ kind }) => kind === 'forgotten') ? true : undefined,
  )
  await agent[Symbol.asyncDispose]()
  assert.deepEqual((await listBackups(lab.options.directory, uuid)).backups, [])

  lab.events.length = 0
  await using fresh = await lab.start()
  await lab.enrol(true)
  await lab.until('it is enrolled', () => (fresh.state.phase === 'open' ? true : undefined))
  assert.notDeepEqual(await volumeKey(lab.device), before)
})

test('a locked node is reset: keys first, then a receipt that its guardians can be told by', async () => {
  await using lab = await agentLab()
  const first = await enrolled(lab)
  await first[Symbol.asyncDispose]()
  await rm(join(lab.options.runtimeDirectory, 'temporary-key'))
  await using agent = await lab.start()
  await lab.until('it is connected', () =>
    lab.reports.at(-1)?.phase === 'locked' ? true : undefined,
  )
  const signed = await ended(lab, agent, await lab.command('reset'))
  assert.equal((signed.receipt.vault as { level: number }).level, 3)
  assert.equal(agent.state.phase, 'wiped')
  const refused = await lab.peer(agent.node, '/v1/unlock', {
    sealed: await lab.sealFor((await look(lab, agent.node)).exchange, Secret.copy('x')),
  })
  assert.match(JSON.stringify(refused.body), /agent.push_refused/)
})
