import { createPrivateKey } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { Guardian, openGuardianServer, ReleaseLog, WardKeys } from '@holdfast/agent/guardian'
import type { GuardianPlan } from './unlock-plan.ts'

// A guardian's endpoint as the agent has it, in a process of its own: real keys on the disk, the release
// log flushed before every answer. A plan on standard input, one line when it listens.

// The plan comes from the bench that started this process, never from outside.
const plan = JSON.parse(await text(process.stdin)) as GuardianPlan
await mkdir(plan.directory, { recursive: true, mode: 0o700 })
const keys = new WardKeys(plan.directory)
const made: Record<string, unknown> = {}
for (const { node, identity } of plan.wards) made[node] = await keys.prepare(node, identity, 1)
const { log, entries } = await ReleaseLog.open(join(plan.directory, 'releases.log'), () =>
  Date.now(),
)
const guardian = new Guardian({
  node: plan.self.node,
  keys,
  log,
  history: entries,
  policy: () => ({ holdMinutes: 0, releasesPerHour: 10_000, sources: [] }),
  frozen: () => undefined,
  onIncident: () => undefined,
  monotonic: () => performance.now(),
})
const server = await openGuardianServer({
  guardian: () => guardian,
  onError: (error) => process.stderr.write(`${String(error)}\n`),
  own: { key: createPrivateKey(plan.self.key), certificate: plan.self.certificate },
  authority: plan.authority,
  host: '127.0.0.1',
  port: 0,
})
process.stdout.write(`${JSON.stringify({ port: server.port, keys: made })}\n`)
