import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { run, Secret, systemClock } from '@holdfast/base'
import { generateEcKey } from '@holdfast/crypto'
import { type Errand, fetchCard, makeCode, signErrand } from '@holdfast/link'
import { type LockedState, lockedStateSchema } from '@holdfast/protocol/locked-state'
import { luksType } from '@holdfast/vault'
import { type AgentLab, agentLab } from './agent-lab.ts'

/**
 * Waits until the newest report says this, and names these ways and no others. One that was being made
 * when a way went may come a little after the order's result.
 */
async function settled(
  lab: AgentLab,
  phase: string,
  epoch: number,
  ways: readonly string[],
): Promise<void> {
  await lab.until(`${phase} in epoch ${epoch} by ${ways.join()}`, () => {
    const report = lab.reports.at(-1)
    const labels = report?.ways.map(({ purpose, label }) => `${purpose} ${label}`.trim())
    return report?.phase === phase && report.epoch === epoch && labels?.join() === ways.join()
      ? report
      : undefined
  })
}

/** Digest of the image. */
async function digest(device: string): Promise<string> {
  const { stdout } = await run('sha256sum', [device])
  return stdout.toString('utf8').slice(0, 64)
}

test('the first node: enrolled, restarted, opened by holders, moved to peers, reset', async () => {
  await using lab = await agentLab()
  const agent = await lab.start()
  await lab.enrol(true)
  await settled(lab, 'open', 0, ['recovery', 'automatic temporary'])
  const enrolment = lab.events.find((event) => event.kind === 'enrolment_port')
  const port = enrolment?.kind === 'enrolment_port' ? enrolment.port : 0
  await lab.until('an end of the enrolment', () => agent.state.task === undefined || undefined)
  await agent[Symbol.asyncDispose]()
  using wrongCode = makeCode()
  await assert.rejects(fetchCard(`127.0.0.1:${port}`, wrongCode), { code: 'link.unreachable' })

  // The agent starts again while the machine keeps its memory: it opens by itself.
  const again = await lab.start()
  await lab.until('it is open', () => (again.state.phase === 'open' ? true : undefined))
  await again[Symbol.asyncDispose]()

  // After a power cut only the holders open it; a wrong key is counted and kills nothing.
  await rm(join(lab.options.runtimeDirectory, 'temporary-key'))
  await using third = await lab.start()
  await lab.until('it waits', () =>
    lab.events.some(({ kind }) => kind === 'waiting') ? true : undefined,
  )
  await lab.until('it is connected', () =>
    lab.reports.at(-1)?.phase === 'locked' ? true : undefined,
  )
  assert.equal(third.state.phase, 'locked')
  using wrong = Secret.copy('not the passphrase')
  const bad = await lab.command('unlock', {
    sealed: await lab.sealFor(lab.card().exchange, wrong),
  })
  assert.equal((await lab.resultOf(bad)).code, 'vault.passphrase_wrong')
  assert.equal(third.state.wrongKeys, 1)
  const foreign = await lab.command('unlock', {
    sealed: await lab.sealFor(lab.card().identity, wrong),
  })
  assert.equal((await lab.resultOf(foreign)).code, 'agent.key_malformed')
  using passphrase = await lab.recoveryPassphrase()
  const good = await lab.command('unlock', {
    sealed: await lab.sealFor(lab.card().exchange, passphrase),
  })
  const opened = await lab.resultOf(good)
  assert.equal(opened.ok, true, opened.message)
  assert.equal(third.state.phase, 'open')

  const guardians = [
    await lab.fleet.guardian(),
    await lab.fleet.guardian(),
    await lab.fleet.guardian(),
  ]
  const order = await lab.reshare(guardians, 1)
  assert.equal((await lab.resultOf(order)).ok, true)
  await settled(lab, 'open', 1, ['recovery', 'automatic epoch 1'])
  assert.equal(third.state.genesis, false)

  const reset = await lab.command('reset')
  assert.equal((await lab.resultOf(reset)).ok, true)
  assert.equal(third.state.phase, 'wiped')
  assert.equal(await luksType({ device: lab.device }), undefined)
})

test('a later node waits for its guardians, opens through them, and moves on', async () => {
  await using lab = await agentLab()
  const guardians = [
    await lab.fleet.guardian(),
    await lab.fleet.guardian(),
    await lab.fleet.guardian(),
  ]
  const agent = await lab.start()
  await lab.enrol(false)
  await lab.until('it waits for guardians', () =>
    agent.state.task?.step === 'await_guardians' ? true : undefined,
  )
  assert.equal(await luksType({ device: lab.device }), undefined)
  await lab.reshare(guardians, 1)
  await settled(lab, 'open', 1, ['recovery', 'automatic epoch 1'])
  await lab.until('an end of the enrolment', () => agent.state.task === undefined || undefined)
  await agent[Symbol.asyncDispose]()

  // Everything is dark, then two of three come back: it opens without anybody.
  for (const guardian of guardians) await guardian.stop()
  await using again = await lab.start()
  await lab.until('it retries', () =>
    lab.events.some(({ kind }) => kind === 'waiting') ? true : undefined,
  )
  assert.equal(again.state.phase, 'locked')
  for (const guardian of guardians.slice(1)) await guardian.start()
  await lab.until('it is open', () => (again.state.phase === 'open' ? true : undefined))

  await guardians[0]?.start()
  const order = await lab.reshare(guardians, 2)
  assert.equal((await lab.resultOf(order)).ok, true)
  await settled(lab, 'open', 2, ['recovery', 'automatic epoch 2'])
  for (const { keys } of guardians) await keys.retire(again.node, 1)
  const rehearsal = await lab.resultOf(await lab.command('rehearse'))
  const ways = rehearsal.data?.ways as { purpose: string; state: string }[]
  assert.deepEqual(
    ways.map(({ purpose, state }) => `${purpose} ${state}`),
    ['recovery not_tried', 'automatic proven'],
  )
  const health = async () => {
    const { data } = await lab.resultOf(await lab.command('rehearse'))
    const found = data?.guardians as { code?: string }[] | undefined
    return found?.map(({ code = 'healthy' }) => code).sort()
  }
  assert.deepEqual(await health(), ['healthy', 'healthy', 'healthy'])
  await guardians[2]?.stop()
  assert.deepEqual(await health(), ['agent.guardian_unreachable', 'healthy', 'healthy'])
  const left = await lab.resultOf(await lab.command('leave'))
  assert.equal(left.ok, true, left.message)
  assert.equal(again.state.phase, 'left')
})

test('a disk that carries something is shown on the card, refused, and not touched', async () => {
  await using lab = await agentLab()
  await run('mkfs.ext4', ['-q', '-F', lab.device])
  const before = await digest(lab.device)
  await using agent = await lab.start()
  await assert.rejects(lab.enrol(true), {
    code: 'link.enrolment_refused',
    message: /in use: .* holds ext4/,
  })
  assert.equal(lab.card().device.header, 'foreign')
  assert.equal(agent.state.phase, 'factory')
  assert.equal(await digest(lab.device), before)
})

test('a set of guardians with a key that its guardian has not signed is refused', async () => {
  await using lab = await agentLab()
  const guardian = await lab.fleet.guardian()
  await using agent = await lab.start()
  await lab.enrol(false)
  const liar = {
    ...guardian,
    identity: { ...guardian.identity, identity: (await lab.fleet.node()).identity },
  }
  const order = await lab.reshare([liar], 1)
  assert.equal((await lab.resultOf(order)).code, 'agent.guardian_key_invalid')
  assert.equal(agent.state.task?.step, 'await_guardians')
})

test('who has only the identity of the coordinator gets no ward key destroyed and nobody moved', async () => {
  await using lab = await agentLab()
  await using agent = await lab.start()
  await lab.enrol(false)
  const { node, identity } = lab.card()
  const { coordinator } = lab
  const session = await coordinator.session(node)
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const to = { cluster: coordinator.enrolment.cluster, node }
  const about = { ward: node, identity, epoch: 1 }
  const prepare = { kind: 'ward', action: 'prepare', ...about, id: 'p'.repeat(22) } as const
  await session.deliver(coordinator.signErrand(node, prepare))
  assert.equal((await lab.resultOf(prepare.id)).ok, true)
  const retire = { kind: 'ward', action: 'retire', ...about, id: 'r'.repeat(22) } as const
  const move: Errand = {
    ...{ kind: 'reshare', id: 's'.repeat(22) },
    ...{ epoch: 9, threshold: 0, guardians: [] },
  }
  for (const errand of [retire, move]) {
    await session.deliver(signErrand(other, to, errand))
    assert.equal((await lab.resultOf(errand.id)).code, 'link.document_invalid')
  }
  // Signed for another node it is worth as little.
  await session.deliver({
    ...coordinator.signErrand('x'.repeat(43), { ...retire, id: 't'.repeat(22) }),
  })
  assert.equal((await lab.resultOf('t'.repeat(22))).code, 'link.document_invalid')
  await session.deliver(coordinator.signErrand(node, { ...prepare, id: 'q'.repeat(22) }))
  assert.equal((await lab.resultOf('q'.repeat(22))).ok, true, 'the key was not retired')
  assert.equal(agent.state.task?.step, 'await_guardians')
})

type Progress = NonNullable<LockedState['progress']>

/** What the unlock has and lacks, as a stranger sees it; one may look sixty times in a minute. */
async function progressOf(
  lab: AgentLab,
  node: string,
  wanted: (progress: Progress) => boolean,
): Promise<Progress> {
  for (let looks = 0; looks < 200; looks += 1) {
    const { body } = await lab.peer(node, '/v1/state')
    const { progress } = lockedStateSchema.parse(body)
    if (progress !== undefined && wanted(progress)) return progress
    await systemClock.sleep(1_200)
  }
  throw new Error('the unlock has not come so far')
}

test('a guardian that lies at an unlock is named to the coordinator, and keeps nobody out', async () => {
  await using lab = await agentLab()
  const guardians = [
    await lab.fleet.guardian(),
    await lab.fleet.guardian(),
    await lab.fleet.guardian(),
  ]
  const [liar, away] = guardians
  assert.ok(liar && away)
  const agent = await lab.start()
  await lab.enrol(false)
  await lab.reshare(guardians, 1)
  await settled(lab, 'open', 1, ['recovery', 'automatic epoch 1'])
  await lab.until('an end of the enrolment', () => agent.state.task === undefined || undefined)
  await agent[Symbol.asyncDispose]()

  const find = liar.keys.find.bind(liar.keys)
  liar.keys.find = async (...of) => ({ ...(await find(...of)), key: generateEcKey('P-256') })
  await away.stop() // else two honest ones may be faster
  await using again = await lab.start()
  const named = await lab.until('an alarm', () =>
    lab.frames.find((frame) => frame.kind === 'incident' && frame.code === 'peer.guardian_lied'),
  )
  assert.ok(named.kind === 'incident' && named.text.includes(liar.identity.node))
  assert.equal(again.state.phase, 'locked')
  const progress = await progressOf(lab, again.node, ({ answered }) => answered.length > 0)
  assert.deepEqual(progress.answered, [guardians[2]?.identity.node])
  const reason = progress.missing.find(({ guardian }) => guardian === liar.identity.node)?.reason
  assert.match(reason ?? '', /^agent.guardian_lied/)
  await away.start()
  await lab.until('it is open', () => (again.state.phase === 'open' ? true : undefined))
})
