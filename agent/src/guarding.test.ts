import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { lockedStatePath } from '@holdfast/protocol/locked-state'
import { type AgentLab, agentLab } from './agent-lab.ts'
import { ReleaseLog, verifyReleaseLog } from './release-log.ts'

// A node that cannot guard others: it starts, opens its own vault and has its session all the same.

/** An enrolled node whose agent has been stopped; its vault opens by itself. */
async function enrolled(): Promise<AgentLab> {
  const lab = await agentLab()
  const agent = await lab.start()
  await lab.enrol(true)
  await lab.until('rest', () =>
    agent.state.phase === 'open' && agent.state.task === undefined ? true : undefined,
  )
  await agent[Symbol.asyncDispose]()
  lab.events.length = 0
  lab.frames.length = 0
  return lab
}

/** Starts it; its vault opens, and it has its session. */
async function opens(lab: AgentLab) {
  const sessions = lab.reports.length
  const agent = await lab.start()
  await lab.until('an open vault', () => (agent.state.phase === 'open' ? true : undefined))
  await lab.until('a session', () => (lab.reports.length > sessions ? true : undefined))
  assert.equal((await lab.resultOf(await lab.command('rehearse'))).ok, true)
  return agent
}

const incident = (lab: AgentLab, code: string) =>
  lab.until(`the incident ${code}`, () =>
    lab.frames.find((frame) => frame.kind === 'incident' && frame.code === code),
  )

const textOf = (frame: Awaited<ReturnType<typeof incident>>) => ('text' in frame ? frame.text : '')
const ports = (lab: AgentLab) => lab.events.filter(({ kind }) => kind === 'peer_port')

/** Orders the node to make a key for itself as a ward; what comes of it. */
async function prepare({ card, coordinator, resultOf }: AgentLab, id: string) {
  const { node, identity } = card()
  const errand = { kind: 'ward', action: 'prepare', ward: node, identity, epoch: 1, id } as const
  const session = await coordinator.session(node)
  await session.deliver(coordinator.signErrand(node, errand))
  return await resultOf(id)
}

test('a taken peer port: the vault opens, and the port follows when it is free', async () => {
  await using lab = await enrolled()
  const { peerPort } = lab.options
  const squatter = createServer().listen(peerPort, '127.0.0.1')
  await once(squatter, 'listening')
  const agent = await opens(lab)
  const told = await incident(lab, 'agent.peer_port_closed')
  assert.match(textOf(told), new RegExp(`the peer port ${peerPort} .*EADDRINUSE`))
  assert.deepEqual(ports(lab), [])
  const report = await agent.report()
  assert.ok(report.incidents.some((text) => text.startsWith('agent.peer_port_closed')))
  squatter.close()
  await once(squatter, 'close')
  await lab.until('the port', () => (ports(lab).length > 0 ? true : undefined))
  const { status } = await lab.peer(agent.node, lockedStatePath)
  assert.equal(status, 200)
  const all = lab.events.filter((event) => event.kind === 'incident')
  assert.equal(all.length, 1, 'said once however often it was tried')
})

test('a damaged log: it is set aside, and the node guards and opens', async () => {
  await using lab = await enrolled()
  const path = join(lab.options.directory, 'releases.log')
  const { log } = await ReleaseLog.open(path, () => 0)
  for (const ward of ['one', 'two', 'three'])
    await log.append({ event: 'released', ward, epoch: 1, source: '192.0.2.1', code: '' })
  const whole = await readFile(path, 'utf8')
  await writeFile(path, whole.replace('"two"', '"tow"'))
  const damaged = await readFile(path)
  await opens(lab)
  assert.match(textOf(await incident(lab, 'agent.log_damaged')), /releases\.log\.damaged-1/)
  assert.deepEqual(await readFile(`${path}.damaged-1`), damaged)
  assert.equal(ports(lab).length, 1)
  assert.equal((await verifyReleaseLog(path))[0]?.event, 'damaged')
})

test('a log that cannot be used: no ward is served, all else goes on, and guarding follows', async () => {
  await using lab = await enrolled()
  const path = join(lab.options.directory, 'releases.log')
  await rm(path, { force: true })
  await mkdir(path)
  const agent = await opens(lab)
  assert.match(textOf(await incident(lab, 'agent.guardian_stopped')), /releases\.log/)
  const { status } = await lab.peer(agent.node, lockedStatePath)
  assert.equal(status, 200, 'who wants to look, or to push a key, is served')
  assert.equal((await prepare(lab, 'a'.repeat(22))).code, 'agent.guardian_stopped')
  await rm(path, { recursive: true })
  let done = false
  for (let turn = 0; turn < 600 && !done; turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100))
    done = (await prepare(lab, `${turn}`.padStart(22, 'b'))).ok
  }
  assert.ok(done, 'it guards again without a restart')
  assert.equal((await verifyReleaseLog(path))[0]?.event, 'prepared')
})

test('a retired key that cannot be destroyed: it is told, and the node guards', async () => {
  await using lab = await enrolled()
  const folder = join(lab.options.directory, 'wards', 'w'.repeat(43))
  await mkdir(join(folder, '1.jwk'), { recursive: true })
  await writeFile(join(folder, '1.retired'), '')
  await opens(lab)
  const told = textOf(await incident(lab, 'base.file_unreadable'))
  assert.match(told, /retired keys .* could not be destroyed.*w\/1\.jwk: EISDIR/)
  assert.equal((await prepare(lab, 'a'.repeat(22))).ok, true)
  const all = lab.events.filter((event) => event.kind === 'incident')
  assert.equal(all.length, 1, 'not that it guards nobody')
})

test('a witness that cannot be read: the vault opens without a session, and it is said', async () => {
  await using lab = await enrolled()
  await writeFile(join(lab.options.directory, 'witness.json'), 'rubbish')
  const agent = await lab.start()
  await lab.until('an open vault', () => (agent.state.phase === 'open' ? true : undefined))
  const told = await lab.until('an incident', () =>
    lab.events.find((event) => event.kind === 'incident'),
  )
  assert.equal(told.kind === 'incident' && told.code, 'agent.membership_failed')
  const sessions = lab.reports.length
  await rm(join(lab.options.directory, 'witness.json'))
  await lab.until('a session', () => (lab.reports.length > sessions ? true : undefined))
  const failures = lab.events.filter(
    (event) => event.kind === 'incident' && event.code === 'agent.membership_failed',
  )
  assert.equal(failures.length, 1, 'said once however often it was tried')
})
