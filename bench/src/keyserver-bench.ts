import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import type { CurveName } from '@holdfast/crypto'
import type { BenchContext } from './bench.ts'
import { exchangeOnce, type Mode } from './client.ts'
import { makeKeyDirectory, recoveryRequests } from './keys.ts'
import type { LoadPlan, LoadReport } from './load-plan.ts'
import { type BenchResult, compare, serverComparisons } from './result.ts'
import {
  type RunningServer,
  startOurs,
  startTangdExec,
  startTangdFork,
  tangdListener,
} from './servers.ts'

const requestCount = 400
const concurrency = 8
const modes: readonly Mode[] = ['new-connection', 'keep-alive', 'keep-alive-quick-ack']

const modeNotes: Readonly<Record<Mode, readonly string[]>> = {
  'new-connection': ['each request on a connection of its own, as clevis asks'],
  'keep-alive': [
    'tangd sends a reply in two small writes without TCP_NODELAY: an ordinary client waits 40 ms for the second',
  ],
  'keep-alive-quick-ack': [
    'by a client that acknowledges at once, so that the two small writes cost tangd nothing',
  ],
}

/** Our key server beside tangd on one key directory per curve, with random points, in each mode. */
export async function benchKeyServer(context: BenchContext): Promise<BenchResult[]> {
  const results: BenchResult[] = []
  for (const crv of ['P-521', 'P-256'] as const) {
    for (const mode of modes) {
      const name = `keyserver/${crv.toLowerCase().replace('-', '')}/${mode}`
      if (context.selects(name)) results.push(await benchMode(context, name, crv, mode))
    }
  }
  return results
}

async function benchMode(
  context: BenchContext,
  name: string,
  crv: CurveName,
  mode: Mode,
): Promise<BenchResult> {
  context.progress(name)
  const folder = await context.folder()
  const keys = await makeKeyDirectory(join(folder, 'keys'), crv)
  await using servers = new AsyncDisposableStack()
  const ours = servers.use(await startOurs(keys.path, availableParallelism()))
  const exec = servers.use(await startTangdExec(keys.path))
  const fork = await startTangdFork(keys.path, context.tangdFork)
  const running = [ours, exec]
  if ('server' in fork) running.push(servers.use(fork.server))
  const requests = recoveryRequests(keys, requestCount)
  await requireSameAnswers(running, requests.slice(0, 20))
  const report = await generateLoad({
    targets: running.map(({ name, port, pid }) => ({ name, port, pid })),
    requests,
    mode,
    concurrency,
    rounds: context.rounds,
    seconds: context.seconds,
    warmUpSeconds: Math.min(0.5, context.seconds),
  })
  const notes = [
    `${concurrency} clients; ${availableParallelism()} server processes of ours; tangd started by ${tangdListener().name} for each connection`,
    'our limit per address is off, because all clients share one address',
    ...modeNotes[mode],
    'missing' in fork ? fork.missing : `fork mode is that of ${await versionOf(context.tangdFork)}`,
  ]
  return compare(
    name,
    report.ours ?? [],
    {
      'tangd-exec': report['tangd-exec'] ?? null,
      'tangd-fork': report['tangd-fork'] ?? null,
    },
    serverComparisons,
    notes,
  )
}

async function versionOf(program: string | undefined): Promise<string> {
  if (program === undefined) return 'the installed tangd'
  const { stdout, stderr } = await run(program, ['--version'], { accept: [0, 1] })
  return stdout.toString('utf8').trim() || stderr.trim() || 'an unknown tangd'
}

/** Runs the load generator as a process of its own. */
export async function generateLoad(plan: LoadPlan): Promise<LoadReport> {
  const program = fileURLToPath(new URL('load-main.ts', import.meta.url))
  const perTarget = plan.seconds + plan.warmUpSeconds + 15
  const { stdout } = await run(process.execPath, [program], {
    input: JSON.stringify(plan),
    timeout: plan.rounds * plan.targets.length * perTarget * 1000,
  })
  // Written by load-main.ts of this same folder.
  return JSON.parse(stdout.toString('utf8')) as LoadReport
}

/** Figures of servers that answer differently would not be comparable: every byte of the body counts. */
async function requireSameAnswers(servers: RunningServer[], requests: string[]): Promise<void> {
  for (const request of requests) {
    const bodies = await Promise.all(servers.map(({ port }) => bodyOf(port, request)))
    if (new Set(bodies).size !== 1) throw new Error('the servers measured answer differently')
  }
}

function bodyOf(port: number, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    exchangeOnce(port, Buffer.from(request, 'latin1'), (status, reply) => {
      if (status === 200) resolve(reply.toString('latin1').split('\r\n\r\n')[1] ?? '')
      else reject(new Error(`a server answered ${status} to a valid request`))
    })
  })
}
