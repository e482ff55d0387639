import { once } from 'node:events'
import { access, readdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isFault, messageOf, run, systemClock } from '@holdfast/base'
import type { AgentFrame } from '@holdfast/protocol/frames'
import { serviceDefinitionSchema } from '@holdfast/protocol/manifest'
import { type AgentLab, agentLab } from './agent-lab.ts'
import { statePath, unitName, unitText } from './service-unit.ts'

// Runs inside a virtual machine, started by its systemd: a whole agent with a volume that is really
// mapped, its services as real units. Prints one JSON line for each step on the console; the test
// outside judges them.

const units = '/run/systemd/system'
const probe = '/usr/lib/guest/probe.mjs'

function step(name: string, facts: Record<string, unknown>): void {
  process.stdout.write(`\nSTEP ${JSON.stringify({ step: name, ...facts })}\n`)
}

const services = {
  probe: {
    description: 'asks what it may do\\',
    command: ['/usr/bin/node', probe, 'a b', '%n', '$HOME', 'x\nExecStartPre=+/bin/sh', '"\\;'],
    directory: 'probe.data',
    memoryMegabytes: 256,
    syscalls: { groups: ['@system-service'], mode: 'enforce' },
  },
  crasher: { command: ['/bin/busybox', 'false'], directory: 'crasher' },
  once: { command: ['/bin/busybox', 'true'], directory: 'once', restart: 'no' },
  killed: {
    command: ['/bin/busybox', 'chroot', '/', 'true'],
    directory: 'killed',
    restart: 'no',
    syscalls: { groups: ['@system-service'], mode: 'enforce' },
  },
  audited: {
    command: ['/bin/busybox', 'chroot', '/', 'true'],
    directory: 'audited',
    restart: 'no',
    syscalls: { groups: ['@system-service'], mode: 'audit' },
  },
  hungry: {
    command: ['/bin/busybox', 'dd', 'if=/dev/zero', 'of=/dev/null', 'bs=200M', 'count=1'],
    directory: 'hungry',
    restart: 'no',
    memoryMegabytes: 32,
  },
  wrong: { command: ['busybox', 'true'], directory: 'wrong' },
}

const healthChecks = {
  unit: { kind: 'unit', target: 'probe' },
  program: { kind: 'command', target: '/bin/busybox test -w /etc/passwd', required: false },
  port: { kind: 'tcp', target: '127.0.0.1:1', required: false, withinSeconds: 1 },
  user: { kind: 'command', target: '/bin/busybox test -r /etc/passwd' },
  gone: { kind: 'unit', target: 'crasher', withinSeconds: 1 },
}

async function main(): Promise<void> {
  await using lab = await agentLab()
  const agent = await lab.start()
  await lab.enrol(true)
  const opened = await lab.until('an open vault', () =>
    lab.reports.find(({ phase }) => phase === 'open'),
  )
  step('open', { mapped: opened.mapped })
  await lab.policy({ services, healthChecks })
  await first(lab)
  await firstBoot(lab)
  await logs(lab)
  await restart(lab)
  await agent[Symbol.asyncDispose]()
  await agentRestart(lab)
  await lockAndOpen(lab)
  await reboot(lab)
}

async function resultOf(lab: AgentLab, ...order: Parameters<AgentLab['command']>) {
  const { ok, code, data, message } = await lab.resultOf(await lab.command(...order))
  return { ok, code, data, message }
}

/** The services as the command shows them, once they are as `wanted`. */
async function shown(lab: AgentLab, wanted: (states: Map<string, string>) => boolean) {
  for (let turn = 0; turn < 240; turn += 1) {
    const { data } = await resultOf(lab, 'services')
    const found = (data?.services ?? []) as { name: string; state: string; detail?: string }[]
    if (wanted(new Map(found.map(({ name, state }) => [name, state])))) return found
    await systemClock.sleep(2_000)
  }
  throw new Error('the services did not come to be as expected')
}

async function first(lab: AgentLab): Promise<void> {
  const found = await shown(
    lab,
    (states) =>
      states.get('probe') === 'running' &&
      states.get('once') === 'stopped' &&
      ['crasher', 'killed', 'audited', 'hungry'].every((name) => states.get(name) === 'failed'),
  )
  step('services', { services: found })
  const report = await lab.until('a report of them', () =>
    lab.reports.findLast(({ services: each }) => each.hungry === 'failed'),
  )
  step('report', { services: report.services })
  const facts = await written('/var/lib/private/holdfast-services/probe.data/facts.json')
  const own = { mnt: await readlink('/proc/1/ns/mnt'), uts: await readlink('/proc/1/ns/uts') }
  step('sandbox', { facts, own, mounts: await mounts() })
}

/** What a service writes some time after it has begun to run. */
async function written(path: string): Promise<unknown> {
  for (let turn = 0; turn < 240; turn += 1) {
    const text = await readFile(path, 'utf8').catch(() => '')
    if (text.endsWith('}')) return JSON.parse(text)
    await systemClock.sleep(500)
  }
  throw new Error(`nobody has written ${path}`)
}

async function mounts(): Promise<string[]> {
  const text = await readFile('/proc/self/mountinfo', 'utf8')
  return text
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith('/var/lib/') && path.includes('holdfast'))
}

/** What the first boot made when the vault was mounted, and a canary in it. */
async function firstBoot(lab: AgentLab): Promise<void> {
  const result = await resultOf(lab, 'first-boot')
  const health = await lab.until('a report of the checks', () =>
    lab.reports.findLast(
      ({ health: each }) =>
        each?.unit === 'passing' &&
        each.user === 'passing' &&
        each.port === 'failing' &&
        each.gone === 'failing',
    ),
  )
  const incident = await lab.until('an incident of it', () =>
    lab.frames.find(
      (frame) =>
        frame.kind === 'incident' &&
        frame.code === 'health.failing' &&
        frame.text.startsWith('gone: '),
    ),
  )
  step('first-boot', { ...result, health: health.health, incident })
  await readFile('/var/lib/holdfast-vault/backup/service-passwords.kdbx')
  const touched = await lab.until('an incident', () =>
    lab.frames.find((frame) => frame.kind === 'incident' && frame.code.startsWith('canary.')),
  )
  step('canary', { touched })
}

async function logs(lab: AgentLab): Promise<void> {
  const id = await lab.command('logs', { service: 'probe', lines: 50 })
  const result = await lab.resultOf(id)
  const isOutput = (frame: AgentFrame) => frame.kind === 'output' && frame.command === id
  const text = lab.frames
    .filter(isOutput)
    .map((frame) => (frame.kind === 'output' ? frame.text : ''))
  step('logs', { ok: result.ok, data: result.data, text: text.join('') })
  step('foreign-logs', await resultOf(lab, 'logs', { service: 'sshd' }))
  const all = await resultOf(lab, 'logs', { lines: 5 })
  step('all-logs', { ok: all.ok, data: all.data })
}

async function pid(): Promise<string> {
  const { stdout } = await run('systemctl', ['show', '--property=MainPID', unitName('probe')])
  return stdout.toString('utf8').trim()
}

async function restart(lab: AgentLab): Promise<void> {
  const before = await pid()
  const result = await resultOf(lab, 'restart', { service: 'probe' })
  step('restart', { ...result, before, after: await pid() })
  step('restart-wrong', await resultOf(lab, 'restart', { service: 'wrong' }))
  step('restart-unknown', await resultOf(lab, 'restart', { service: 'nobody' }))
}

/** The agent has ended and starts again; nothing that runs notices. */
async function agentRestart(lab: AgentLab): Promise<void> {
  const before = await pid()
  const again = await lab.start()
  const { ok } = await resultOf(lab, 'services')
  await shown(lab, (states) => states.get('probe') === 'running')
  step('agent-restart', { ok, before, after: await pid(), phase: again.state.phase })
}

const ours = async () => (await readdir(units)).filter((name) => name.startsWith('holdfast-'))

/** Panic 1 closes the vault; holders open it again. */
async function lockAndOpen(lab: AgentLab): Promise<void> {
  const locked = await resultOf(lab, 'panic', { level: 1 })
  step('locked', {
    ok: locked.ok,
    message: locked.message,
    units: await ours(),
    mounts: await mounts(),
  })
  const { data } = await resultOf(lab, 'services')
  step('locked-services', { services: data?.services })
  // Somebody brings a unit of their own making: systemd itself does not start it.
  const given = serviceDefinitionSchema.parse(services.once)
  const place = { state: statePath, hidden: [] }
  await writeFile(join(units, 'foreign.service'), unitText('foreign', given, place))
  await run('systemctl', ['daemon-reload'])
  const refused = await run('systemctl', ['start', 'foreign.service'], { accept: [0, 1, 4, 6] })
  step('refused', { code: refused.code, text: refused.stderr.slice(0, 300) })
  using passphrase = await lab.recoveryPassphrase()
  const sealed = await lab.sealFor(lab.card().exchange, passphrase)
  const opened = await resultOf(lab, 'unlock', { sealed })
  step('unlocked', { ok: opened.ok, message: opened.message })
  await shown(lab, (states) => states.get('probe') === 'running')
  const canaries = lab.frames.filter(
    (frame) => frame.kind === 'incident' && frame.code.startsWith('canary.'),
  )
  step('again', { canaries: canaries.length, units: (await ours()).length, mounts: await mounts() })
}

/** The last thing that this program sees; systemd, which ends it then, waits until it has said so. */
async function reboot(lab: AgentLab): Promise<never> {
  const ended = once(process, 'SIGTERM')
  const id = await lab.command('reboot')
  await lab.until('a farewell', () =>
    lab.frames.find(
      (frame) =>
        frame.kind === 'output' && frame.command === id && frame.text.includes('going down'),
    ),
  )
  const mapped = await readdir('/dev/mapper').catch(() => [])
  const open = await Promise.all(
    mapped.map(async (name) => await access(join('/dev/mapper', name)).then(() => name)),
  )
  step('reboot', { units: await ours(), mounts: await mounts(), mapped: open })
  const late = systemClock.sleep(120_000).then(() => step('still-up', {}))
  await Promise.race([ended, late])
  process.exit()
}

try {
  await main()
} catch (error) {
  step('failed', {
    error: isFault(error) ? { ...error } : `${messageOf(error)} ${(error as Error).stack}`,
  })
  await run('systemctl', [
    'start',
    'poweroff.target',
    '--job-mode=replace-irreversibly',
    '--no-block',
  ])
}
