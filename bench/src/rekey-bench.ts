import { randomUUID } from 'node:crypto'
import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '@holdfast/base'
import { adminClient } from '@holdfast/keyserver'
import { createPins } from '@holdfast/seal'
import { rekeyFleet, type VaultDeps } from '@holdfast/vault'
import type { BenchContext } from './bench.ts'
import { makeKeyDirectory } from './keys.ts'
import { childrenTime } from './process-cpu.ts'
import { type BenchResult, type Comparison, compare, withFigure } from './result.ts'
import { startOurs } from './servers.ts'
import type { Figures } from './statistics.ts'

const rounds = 4
const oursPerRound = 50
const clevisPerRound = 4
/** How many volumes at a time, for both: the default of ours. */
const concurrency = 4
const passphrase = 'correct horse battery staple'
const boundSlot = 1

const comparisons: readonly Comparison[] = [
  { figure: 'msPerVolume', ratio: 'wall', direction: 'less' },
  { figure: 'cpuMsPerVolume', ratio: 'cpu', direction: 'less' },
]

/** After a key rotation: rekey 200 real volumes, beside `clevis luks regen` on a sample of equals. */
export async function benchRekey(context: BenchContext): Promise<BenchResult[]> {
  const name = 'rekey/200'
  if (!context.selects(name)) return []
  context.progress(name)
  const folder = await context.folder()
  const keys = await makeKeyDirectory(join(folder, 'keys'), 'P-521')
  await using server = await startOurs(keys.path, 0)
  const config = { url: `http://127.0.0.1:${server.port}`, thp: keys.thp }
  const original = await makeVolume(join(folder, 'original.img'), config)
  const make = (count: number, kind: string) => copies(original, join(folder, kind), count)
  const ours = await make(rounds * oursPerRound, 'ours')
  const sample = await make(rounds * clevisPerRound, 'clevis')
  await adminClient(server.adminSocket).rotate()
  const deps: VaultDeps = { pins: createPins(), stateDirectory: join(folder, 'state') }
  const measured = { ours: [] as Figures[], clevis: [] as Figures[] }
  for (let round = 0; round < rounds; round += 1) {
    const mine = ours.slice(round * oursPerRound, (round + 1) * oursPerRound)
    let keyslot = boundSlot
    const rekey = async () => {
      keyslot = await rekeyOurs(deps, `round-${round}`, mine)
    }
    measured.ours.push(await timed(mine, rekey))
    await requireOpens(mine[0] ?? '', keyslot)
    const theirs = sample.slice(round * clevisPerRound, (round + 1) * clevisPerRound)
    measured.clevis.push(await timed(theirs, () => rekeyClevis(theirs)))
  }
  const result = compare(
    name,
    measured.ours,
    { 'clevis-luks-regen': measured.clevis },
    comparisons,
    [
      `volumes bound by clevis to one tang pin, P-521; ${concurrency} at a time for both`,
      `${rounds} rounds of ${oursPerRound} volumes by ours and ${clevisPerRound} by clevis: clevis is scaled per volume`,
      'ours proves the new binding and flushes a journal before the old one goes; clevis replaces it in place',
    ],
  )
  const total = (rounds: readonly Figures[], per: number) =>
    rounds.reduce((sum, { msPerVolume = Number.NaN }) => sum + msPerVolume * per, 0) / 1000
  const scaled = oursPerRound
  return [
    {
      ...result,
      ours: withFigure(result.ours, 'secondsFor200', total(measured.ours, scaled)),
      peers: {
        'clevis-luks-regen': withFigure(
          result.peers['clevis-luks-regen'] ?? {},
          'secondsFor200',
          total(measured.clevis, scaled),
        ),
      },
    },
  ]
}

/** A small volume with a cheap passphrase slot, bound by clevis. */
async function makeVolume(path: string, config: Record<string, string>): Promise<string> {
  await writeFile(path, '')
  await truncate(path, 32 * 1024 * 1024)
  const cheap = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000']
  const format = ['luksFormat', '--batch-mode', '--type', 'luks2', ...cheap, '--key-file', '-']
  await run('cryptsetup', [...format, path], { input: passphrase })
  const bind = ['luks', 'bind', '-d', path, '-k', '-', '-s', String(boundSlot)]
  await run('clevis', [...bind, 'tang', JSON.stringify(config)], { input: passphrase })
  return path
}

async function copies(original: string, prefix: string, count: number): Promise<string[]> {
  const paths = Array.from({ length: count }, (_, index) => `${prefix}-${index}.img`)
  for (const path of paths) {
    await run('cp', ['--sparse=always', original, path])
    await run('cryptsetup', ['luksUUID', '--batch-mode', '--uuid', randomUUID(), path])
  }
  return paths
}

async function timed(paths: readonly string[], work: () => Promise<void>): Promise<Figures> {
  const own = process.cpuUsage()
  const children = childrenTime()
  const start = performance.now()
  await work()
  const wall = performance.now() - start
  const { user, system } = process.cpuUsage(own)
  const cpu = (user + system + childrenTime() - children) / 1000
  return { msPerVolume: wall / paths.length, cpuMsPerVolume: cpu / paths.length }
}

/** Rekeys the volumes and returns the keyslot that the first of them is bound to now. */
async function rekeyOurs(deps: VaultDeps, id: string, paths: readonly string[]): Promise<number> {
  const volumes = paths.map((device) => ({ device }))
  const { rekeyed, failed } = await rekeyFleet(deps, { id, volumes, concurrency })
  const first = rekeyed.find(({ device }) => device === paths[0])
  const keyslot = first?.keyslots[0]?.[1]
  if (rekeyed.length === paths.length && keyslot !== undefined) return keyslot
  const reason = failed[0]?.fault.message ?? 'some had nothing to rekey'
  throw new Error(`${paths.length - rekeyed.length} of ${paths.length} volumes: ${reason}`)
}

async function rekeyClevis(paths: readonly string[]): Promise<void> {
  const queue = paths.values()
  const worker = async () => {
    for (const path of queue) {
      await run('clevis', ['luks', 'regen', '-q', '-d', path, '-s', String(boundSlot)])
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
}

/** Clevis itself must open what ours has rekeyed, and cryptsetup take what clevis gets. */
async function requireOpens(path: string, keyslot: number): Promise<void> {
  const { stdout } = await run('clevis', ['luks', 'pass', '-d', path, '-s', String(keyslot)])
  await run('cryptsetup', ['open', '--test-passphrase', '--key-file', '-', path], { input: stdout })
}
