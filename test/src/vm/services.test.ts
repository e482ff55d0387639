import assert from 'node:assert/strict'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bootGuest } from './guest.ts'
import { buildImage, bundled } from './image.ts'
import { addSystemd, systemdInit } from './systemd-guest.ts'

// A whole agent under a real systemd as process 1, with a volume that device-mapper holds open: what
// no container can show. The scenario is `agent/src/services.vm.ts`.

const here = dirname(fileURLToPath(import.meta.url))
const checkout = join(here, '../../..')

interface Shown {
  name: string
  state: string
  detail?: string
}

type Step = { step: string } & Record<string, unknown>

async function bootScenario(): Promise<{ steps: Step[]; console: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-systemd-'))
  try {
    const disk = join(folder, 'disk')
    await writeFile(disk, '')
    await truncate(disk, 1024 * 1024)
    const source = join(checkout, 'agent/src/services.vm.ts')
    const files = {
      ...(await bundled(checkout, source, join(folder, 'bundle'), 'scenario.mjs')),
      'usr/lib/guest/probe.mjs': join(here, 'probe.mjs'),
    }
    const image = await buildImage(folder, checkout, systemdInit(), (root) =>
      addSystemd(root, files),
    )
    const console = await bootGuest(image, disk, folder)
    const steps = [...console.matchAll(/^STEP (.*?)\r?$/gm)].map(
      ([, line = '']) => JSON.parse(line) as Step, // the scenario's own lines
    )
    return { steps, console }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

test('services run in the opened vault under systemd, and never without it', async () => {
  const { steps, console } = await bootScenario()
  const find = (name: string): Step => {
    const step = steps.find((each) => each.step === name)
    assert.ok(step, `no step "${name}" in:\n${console.slice(-8000)}`)
    return step
  }
  assert.equal(find('open').mapped, true)
  const detail = new Map(
    (find('services').services as Shown[]).map(({ name, state, detail = '' }) => [
      name,
      `${state}: ${detail}`,
    ]),
  )
  assert.match(detail.get('probe') ?? '', /^running/)
  assert.match(detail.get('crasher') ?? '', /^failed: (exit-code, status 1|restarted \d)/)
  assert.match(detail.get('once') ?? '', /^stopped/)
  assert.match(detail.get('killed') ?? '', /^failed: (signal|core-dump), status 31/)
  assert.match(detail.get('audited') ?? '', /^failed: exit-code, status 1/)
  assert.match(detail.get('hungry') ?? '', /^failed: (oom-kill|signal)/)
  assert.match(detail.get('wrong') ?? '', /^refused: its program must be an absolute path/)
  const reported = find('report').services as Record<string, string>
  assert.equal(reported.wrong, 'refused')

  const { facts, own, mounts } = find('sandbox') as unknown as {
    facts: Record<string, string>
    own: Record<string, string>
    mounts: string[]
  }
  assert.deepEqual(facts.words, ['a b', '%n', '$HOME', 'x\nExecStartPre=+/bin/sh', '"\\;'])
  assert.equal(facts.cwd, '/var/lib/private/holdfast-services/probe.data')
  assert.notEqual(Number(facts.uid), 0)
  assert.match(facts.capabilities ?? '', /^0+$/)
  assert.deepEqual([facts.seccomp, facts.noNewPrivileges], ['2', '1'])
  assert.notEqual(facts.mnt, own.mnt)
  assert.notEqual(facts.uts, own.uts)
  const { etc, usr, run: runs, vault, others, disk } = facts
  assert.deepEqual({ etc, usr }, { etc: 'EROFS', usr: 'EROFS' })
  for (const refused of [runs, vault, others, disk])
    assert.match(refused ?? '', /^(EACCES|EROFS|ENOENT|EPERM)$/, JSON.stringify(facts))
  assert.deepEqual([Number(facts.tmp), Number(facts.processes)], [0, 1])
  assert.deepEqual(mounts.toSorted(), [
    '/var/lib/holdfast-vault',
    '/var/lib/private/holdfast-services',
  ])

  const claims = facts.claims as unknown as { iss: string; sub: string }
  assert.deepEqual([claims.sub, claims.iss.length], ['probe', 43])

  const boot = find('first-boot').data as { steps: Record<string, string>[] }
  assert.deepEqual(
    boot.steps.map(({ name, outcome }) => `${name} ${outcome}`),
    [
      'identity kept',
      'tpm-binding absent',
      'signing-keys kept',
      'service-tokens kept',
      'canaries kept',
    ],
  )
  assert.match(boot.steps[4]?.detail ?? '', /vault: changes, removal and reading/)
  const health = find('first-boot').health as Record<string, string>
  assert.deepEqual([health.unit, health.user, health.gone], ['passing', 'passing', 'failing'])
  assert.notEqual(health.program, 'passing', 'a check can write nothing')
  assert.equal(health.port, 'failing')
  assert.match(JSON.stringify(find('first-boot').incident), /gone: holdfast-service-crasher/)
  assert.match(JSON.stringify(find('canary').touched), /canary\.read.*holdfast-vault\/backup/)
  assert.equal(find('again').canaries, 1, 'a vault that was locked is no touched canary')

  assert.equal(find('logs').ok, true)
  assert.match(String(find('logs').text), /node\[\d+\]: the probe has written its facts/)
  assert.equal(find('foreign-logs').code, 'agent.service_unknown')
  assert.deepEqual(find('all-logs').data, { lines: 5, truncated: true })
  assert.equal(find('restart').ok, true)
  assert.notEqual(find('restart').before, find('restart').after)
  assert.equal(find('restart-wrong').code, 'agent.service_refused')
  assert.equal(find('restart-unknown').code, 'agent.service_unknown')

  const { before, after, phase } = find('agent-restart')
  assert.deepEqual(
    [before, phase],
    [after, 'open'],
    'an agent that starts again disturbs no service',
  )

  assert.deepEqual(
    [find('locked').ok, find('locked').units, find('locked').mounts],
    [true, [], []],
    JSON.stringify(find('locked')),
  )
  for (const { state, detail: why } of find('locked-services').services as Shown[])
    assert.match(`${state} ${why}`, /^refused (the vault is not open|its program)/)
  assert.notEqual(find('refused').code, 0)
  assert.match(String(find('refused').text), /Assertion failed/)
  assert.equal(find('unlocked').ok, true, JSON.stringify(find('unlocked')))
  assert.equal((find('again').mounts as string[]).length, 2)

  assert.deepEqual(
    [find('reboot').units, find('reboot').mounts],
    [[], []],
    JSON.stringify(find('reboot')),
  )
  assert.deepEqual(
    (find('reboot').mapped as string[]).filter((name) => name !== 'control'),
    [],
  )
  assert.equal(
    steps.some(({ step }) => step === 'still-up' || step === 'failed'),
    false,
    console.slice(-8000),
  )
})
