import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import type { BenchContext } from './bench.ts'
import { type KeyDirectory, makeKeyDirectory, recoveryRequests } from './keys.ts'
import { type BenchResult, type Comparison, compare } from './result.ts'
import { type RunningServer, startOurs, startTangdExec, tangdListener } from './servers.ts'
import type { StormPlan, StormReport, StormWork } from './storm-plan.ts'

const machines = 1000
const inFlight = 100
const distinctSecrets = 20
const plaintext = 'the passphrase of a volume, fifty-four characters long'

const comparisons: readonly Comparison[] = [
  { figure: 'seconds', ratio: 'seconds', direction: 'less' },
  { figure: 'p99', ratio: 'p99', direction: 'less' },
  { figure: 'cpuMs', ratio: 'cpu', direction: 'less' },
]

/** A thousand machines that start at the same moment, against ours and against tangd. */
export async function benchStorm(context: BenchContext): Promise<BenchResult[]> {
  const kinds = [
    { name: 'storm/recover-1000', work: requestsFor, note: 'all connections are opened at once' },
    {
      name: 'storm/unlock-1000',
      work: opensFor,
      note: `whole unlocks by \`open\`, in one client process, ${inFlight} in flight; the client's own arithmetic is part of the time`,
    },
  ].filter(({ name }) => context.selects(name))
  if (kinds.length === 0) return []
  const folder = await context.folder()
  const keys = await makeKeyDirectory(join(folder, 'keys'), 'P-521')
  await using servers = new AsyncDisposableStack()
  const ours = servers.use(await startOurs(keys.path, availableParallelism()))
  const exec = servers.use(await startTangdExec(keys.path))
  const rounds = Math.min(context.rounds, 3)
  const results: BenchResult[] = []
  for (const { name, work, note } of kinds) {
    context.progress(name)
    const targets = [ours, exec].map(({ name, port, pid }) => ({ name, port, pid }))
    const [forOurs, forExec] = [await work(keys, ours), await work(keys, exec)]
    const plan = { targets, rounds, work: { ours: forOurs, 'tangd-exec': forExec } }
    const report = await letLoose(plan)
    const peers = { 'tangd-exec': report['tangd-exec'] ?? null }
    const notes = [
      note,
      `P-521; ${rounds} rounds; tangd started by ${tangdListener().name} for each connection`,
      'our limit per address is off, because all clients share one address',
    ]
    results.push(compare(name, report.ours ?? [], peers, comparisons, notes))
  }
  return results
}

async function letLoose(plan: StormPlan): Promise<StormReport> {
  const program = fileURLToPath(new URL('storm-main.ts', import.meta.url))
  const { stdout } = await run(process.execPath, [program], {
    input: JSON.stringify(plan),
    timeout: plan.rounds * plan.targets.length * 120_000,
  })
  // Written by storm-main.ts of this same folder.
  return JSON.parse(stdout.toString('utf8')) as StormReport
}

async function requestsFor(keys: KeyDirectory): Promise<StormWork> {
  return { kind: 'requests', requests: recoveryRequests(keys, machines) }
}

async function opensFor(keys: KeyDirectory, server: RunningServer): Promise<StormWork> {
  const config = JSON.stringify({ url: `http://127.0.0.1:${server.port}`, thp: keys.thp })
  const secrets: string[] = []
  for (let index = 0; index < distinctSecrets; index += 1) {
    const { stdout } = await run('clevis', ['encrypt', 'tang', config], { input: plaintext })
    secrets.push(stdout.toString('utf8'))
  }
  const sealed = Array.from(
    { length: machines },
    (_, index) => secrets[index % secrets.length] ?? '',
  )
  return { kind: 'opens', sealed, inFlight, plaintext }
}
