import assert from 'node:assert/strict'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { commandData } from '@holdfast/protocol/commands'
import { type AgentLab, agentLab } from './agent-lab.ts'

// The commands of a whole agent, as a process of its own, over the real session. This machine has no
// systemd and no device-mapper, which every answer must say.

async function enrolled(lab: AgentLab, more: readonly string[] = []) {
  const running = await lab.startProcess(0, more)
  assert.ok(running !== undefined)
  await lab.enrol(true)
  await lab.until('rest', () => {
    const last = lab.events.findLast((event) => event.kind === 'phase')
    const rests = last?.kind === 'phase' && last.phase === 'open' && last.task === undefined
    return rests || undefined
  })
  return running
}

test('a node without systemd says why it runs no service, and still tells, logs and converges', async () => {
  await using lab = await agentLab()
  await enrolled(lab)
  await lab.policy({
    services: { web: { command: ['/bin/web'], directory: 'web' } },
    healthChecks: { web: { kind: 'unit', target: 'web' } },
  })
  const result = async (...order: Parameters<AgentLab['command']>) =>
    await lab.resultOf(await lab.command(...order))
  const report = await lab.until('a report of the service', () =>
    lab.reports.findLast(({ services }) => services.web !== undefined),
  )
  assert.deepEqual([report.services.web, report.mapped], ['refused', false])
  const services = await result('services')
  assert.deepEqual(services.data, {
    services: [{ name: 'web', state: 'refused', detail: 'systemd does not run on this machine' }],
  })
  assert.equal((await result('restart', { service: 'web' })).code, 'agent.service_refused')
  assert.equal((await result('reboot')).code, 'agent.reboot_unavailable')

  const status = commandData.status.parse((await result('status')).data)
  assert.equal(status.exchange, lab.card().exchange)
  assert.deepEqual(
    status.recovery.map(({ keyslot }) => keyslot),
    status.report.ways
      .filter(({ purpose }) => purpose === 'recovery')
      .map(({ keyslot }) => keyslot),
  )

  const id = await lab.command('logs', { lines: 2000 })
  const logs = await lab.resultOf(id)
  const isOutput = (frame: AgentLab['frames'][number]) =>
    frame.kind === 'output' && frame.command === id
  const text = lab.frames.filter(isOutput).map((frame) => ('text' in frame ? frame.text : ''))
  assert.equal(logs.ok, true)
  assert.match(text.join(''), /holdfast-agent: \{"kind":"phase","phase":"enrolling"/)
  assert.equal(logs.data?.lines, text.join('').trimEnd().split('\n').length)
  const shownCode = lab.events.find((event) => event.kind === 'code')
  assert.ok(shownCode?.kind === 'code' && !text.join('').includes(shownCode.code))
  assert.equal((await result('logs', { service: 'web' })).code, 'agent.journal_absent')

  const made = await result('first-boot')
  assert.equal(made.ok, true, made.message)
  const boot = commandData['first-boot'].parse(made.data)
  assert.deepEqual(
    boot.steps.map(({ name, outcome }) => `${name} ${outcome}`),
    [
      'identity kept',
      'tpm-binding absent',
      'signing-keys kept',
      'service-tokens absent',
      'canaries kept',
    ],
  )
  assert.match(boot.steps[3]?.detail ?? '', /not mapped/)
  await readFile(join(lab.options.directory, 'backup/recovery-keys.pem'))
  const incident = await lab.until('an incident', () =>
    lab.frames.find((frame) => frame.kind === 'incident' && frame.code === 'canary.read'),
  )
  assert.match('text' in incident ? incident.text : '', /recovery-keys\.pem was read/)
  await lab.until('it in the report', () =>
    lab.reports.findLast(({ incidents }) => incidents.some((each) => each.includes('canary.read'))),
  )
})

test('a reboot takes the agent down and is answered by the one that comes back', async () => {
  await using lab = await agentLab()
  const folder = lab.options.runtimeDirectory
  const [bootId, script] = [join(folder, 'boot-id'), join(folder, 'reboot')]
  await writeFile(bootId, 'first\n')
  await writeFile(script, `#!/bin/sh\necho second > ${bootId}\nkill -KILL $PPID\n`, { mode: 0o755 })
  const more = ['--reboot-command', script, '--boot-id', bootId]
  const running = await enrolled(lab, more)
  const id = await lab.command('reboot')
  await running.ended
  await lab.until('a word that it goes down', () =>
    lab.frames.find((frame) => frame.kind === 'output' && frame.command === id),
  )
  const isResult = (frame: AgentLab['frames'][number]) =>
    frame.kind === 'result' && frame.command === id
  assert.equal(lab.frames.some(isResult), false)
  // The power was off: the temporary way has gone, and the node is locked, but answers.
  await rm(join(folder, 'temporary-key'))
  await lab.startProcess(0, more)
  const result = await lab.resultOf(id)
  assert.deepEqual([result.ok, result.data], [true, { before: 'first', after: 'second' }])
  const locked = await lab.resultOf(await lab.command('services'))
  assert.equal(locked.ok, true)
})
