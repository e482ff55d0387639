import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'
import { createPins, open } from '@holdfast/seal'
import type { BenchContext } from './bench.ts'
import { type Contender, command, timeContenders } from './commands.ts'
import { type KeyDirectory, makeKeyDirectory } from './keys.ts'
import { type BenchResult, commandComparisons, compare } from './result.ts'
import { type RunningServer, startOurs } from './servers.ts'

const perRound = 5
const warmUps = 30
const plaintext = 'the passphrase of a volume, fifty-four characters long'

const root = fileURLToPath(new URL('../../', import.meta.url))
const holdfast = join(root, 'cli/bin/holdfast.mjs')

interface KeyServer {
  server: RunningServer
  keys: KeyDirectory
}

/** `holdfast open`, and `open` in a running process, beside `clevis decrypt` on the same secret. */
export async function benchOpen(context: BenchContext): Promise<BenchResult[]> {
  const policies = [
    { name: 'open/tang1', seal: sealTang },
    { name: 'open/sss2of3', seal: sealThreshold },
  ].filter(({ name }) => context.selects(name) || context.selects(`${name}/in-process`))
  if (policies.length === 0) return []
  await buildCommand()
  const folder = await context.folder()
  await using servers = new AsyncDisposableStack()
  const keyServers: KeyServer[] = []
  for (const name of ['a', 'b', 'c']) {
    const keys = await makeKeyDirectory(join(folder, name), 'P-521')
    keyServers.push({ keys, server: servers.use(await startOurs(keys.path, 0)) })
  }
  const results: BenchResult[] = []
  for (const { name, seal } of policies) {
    context.progress(name)
    results.push(...(await benchPolicy(context, name, await seal(keyServers))))
  }
  return results
}

async function benchPolicy(
  { rounds }: BenchContext,
  name: string,
  sealed: string,
): Promise<BenchResult[]> {
  const inProcess = openInProcess(sealed)
  for (let index = 0; index < warmUps; index += 1) await inProcess.once()
  const contenders = [
    command('holdfast', process.execPath, [holdfast, 'open', '--unattended'], { input: sealed }),
    command('clevis-decrypt', 'clevis', ['decrypt'], { input: sealed }),
    inProcess,
  ]
  const report = await timeContenders(contenders, plaintext, rounds, perRound)
  const note =
    'one secret, sealed by clevis; both ask the same key servers, ours, so that only clients differ'
  const result = (name: string, ours: string, notes: string[]) =>
    compare(
      name,
      report[ours] ?? [],
      { 'clevis-decrypt': report['clevis-decrypt'] ?? null },
      commandComparisons,
      [note, `${rounds} rounds of ${perRound} runs`, ...notes],
    )
  return [
    result(name, 'holdfast', ['both as commands, started anew each time']),
    result(`${name}/in-process`, 'in-process', ['ours in a process that runs already']),
  ]
}

function openInProcess(sealed: string): Contender {
  const pins = createPins()
  return {
    name: 'in-process',
    once: async () => {
      using secret = await open(pins, sealed)
      return Buffer.from(secret.reveal()).toString('utf8')
    },
  }
}

/** Puts the command line into one file, as set-up does, so that a stale one is not measured. */
export async function buildCommand(): Promise<void> {
  await run(process.execPath, [join(root, 'cli/build/main.ts')], { cwd: join(root, 'cli') })
}

/** `holdfast --version` beside Node doing nothing at all, which is the floor. */
export async function benchStartup(context: BenchContext): Promise<BenchResult[]> {
  const name = 'startup/version'
  if (!context.selects(name)) return []
  context.progress(name)
  await buildCommand()
  const version = command('holdfast', process.execPath, [holdfast, '--version'])
  const expected = await version.once()
  const nothing = command('node-alone', process.execPath, [
    '--eval',
    `process.stdout.write(${JSON.stringify(expected)})`,
  ])
  const report = await timeContenders([version, nothing], expected, context.rounds, perRound)
  const peers = { 'node-alone': report['node-alone'] ?? null }
  return [
    compare(name, report.holdfast ?? [], peers, commandComparisons, [
      'warm: the files have been read and the compile cache exists',
      '`node-alone` prints the same line and does nothing else: the floor',
    ]),
  ]
}

function tangConfig({ server, keys }: KeyServer): Record<string, string> {
  return { url: `http://127.0.0.1:${server.port}`, thp: keys.thp }
}

async function sealTang([first]: readonly KeyServer[]): Promise<string> {
  if (first === undefined) throw new Error('no key server was started')
  return await clevisEncrypt('tang', tangConfig(first))
}

async function sealThreshold(servers: readonly KeyServer[]): Promise<string> {
  return await clevisEncrypt('sss', { t: 2, pins: { tang: servers.map(tangConfig) } })
}

async function clevisEncrypt(pin: string, config: unknown): Promise<string> {
  const { stdout } = await run('clevis', ['encrypt', pin, JSON.stringify(config)], {
    input: plaintext,
  })
  return stdout.toString('utf8')
}
