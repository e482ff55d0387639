import { type ChildProcess, spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import { alwaysValid, keyId, selfSigned } from '@holdfast/link'
import { CertificatePress } from './agents-certificates.ts'
import type { BenchContext } from './bench.ts'
import { processorTime } from './process-cpu.ts'
import { type BenchResult, compare } from './result.ts'
import type { Figures } from './statistics.ts'
import type {
  GuardianPlan,
  GuardianReady,
  StormNode,
  UnlockPlan,
  UnlockReport,
} from './unlock-plan.ts'

// A power cut is over: every ward asks its guardians at the same moment.

const wardCount = 500
const guardianCount = 5
const threshold = 3
const inFlight = 100

export async function benchUnlock(context: BenchContext): Promise<BenchResult[]> {
  const count = context.agents ?? wardCount
  const name = `unlock/${count}-wards`
  if (!context.selects(name)) return []
  context.progress(name)
  const rounds = Math.min(context.rounds, 3)
  const folder = await context.folder()
  const { authority, nodes } = await makeNodes(count + guardianCount)
  const [guardianNodes, wards] = [nodes.slice(0, guardianCount), nodes.slice(guardianCount)]
  const publicWards = wards.map(({ node, identity }) => ({ node, identity }))
  await using guardians = new AsyncDisposableStack()
  const running: RunningGuardian[] = []
  for (const [index, self] of guardianNodes.entries()) {
    const directory = join(folder, `guardian-${index}`)
    const plan = { directory, self, authority, wards: publicWards }
    running.push(guardians.use(await startGuardian(plan)))
  }
  const micros = () => running.reduce((sum, { pid }) => sum + processorTime(pid).micros, 0)
  const before = micros()
  const report = await letLoose({
    ...{ authority, wards, threshold, inFlight, rounds },
    guardians: guardianNodes.map((node, index) => ({ ...node, ready: readyOf(running, index) })),
  })
  // Every ward asks all of its guardians at once and is content with the first answers.
  const asked = count * guardianCount * rounds
  const figures: Figures[] = report.map((round) => ({
    ...round,
    cpuMicrosPerRelease: (micros() - before) / asked,
  }))
  return [compare(name, figures, {}, [], notes(count, rounds))]
}

function notes(count: number, rounds: number): string[] {
  return [
    `${count} wards at once, each ${threshold} of ${guardianCount}, all at the same ${guardianCount} guardians, which is the worst placement; ${rounds} rounds`,
    "each guardian is a process with the agent's own endpoint, mutual TLS, one key per ward on the disk and a release log flushed before every answer; all wards are in one process with the agent's peer pin",
    `one process does what ${count} machines would do, ${inFlight} of them at a time, the others wait for their turn in it; wards and guardians share the same two cores; opening the disk itself is not part of it`,
    'p50, p99: milliseconds from the common start until a ward has its passphrase; tries: attempts per ward, failed ones are repeated after about a second',
    'cpuMicrosPerRelease: processor time of all guardians for one request that they answer, nonce and handshake included',
  ]
}

function readyOf(running: readonly RunningGuardian[], index: number): GuardianReady {
  const ready = running[index]?.ready
  if (ready === undefined) throw new Error('a guardian is missing')
  return ready
}

async function makeNodes(count: number): Promise<{ authority: string; nodes: StormNode[] }> {
  const key = p256().privateKey
  const authority = await selfSigned(key, 'fleet', alwaysValid, { authority: true })
  const press = await CertificatePress.create({ key, certificate: authority }, p256().privateKey)
  const nodes = Array.from({ length: count }, () => {
    const { privateKey, publicKey } = p256()
    return {
      node: keyId(privateKey),
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      certificate: press.issue(privateKey),
      identity: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    }
  })
  return { authority, nodes }
}

function p256() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

interface RunningGuardian extends AsyncDisposable {
  readonly pid: number
  readonly ready: GuardianReady
}

async function startGuardian(plan: GuardianPlan): Promise<RunningGuardian> {
  const program = fileURLToPath(new URL('unlock-guardian-main.ts', import.meta.url))
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(JSON.stringify(plan))
  const lines = createInterface({ input: child.stdout })
  const line: string = await Promise.race([
    once(lines, 'line').then(([first]) => String(first)),
    once(child, 'exit').then(([code]) => Promise.reject(new Error(`a guardian ended: ${code}`))),
  ])
  // Written by unlock-guardian-main.ts of this same folder.
  const ready = JSON.parse(line) as GuardianReady
  return { pid: child.pid ?? 0, ready, [Symbol.asyncDispose]: () => ended(child) }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}

async function letLoose(plan: UnlockPlan): Promise<UnlockReport> {
  const program = fileURLToPath(new URL('unlock-storm-main.ts', import.meta.url))
  const { stdout } = await run(process.execPath, [program], {
    input: JSON.stringify(plan),
    timeout: plan.rounds * 150_000,
  })
  // Written by unlock-storm-main.ts of this same folder.
  return JSON.parse(stdout.toString('utf8')) as UnlockReport
}
