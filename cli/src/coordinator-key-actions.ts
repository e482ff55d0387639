import { ensureDirectory, fileFault, isFault, parseJsonObject, writeDurable } from '@holdfast/base'
import {
  BackupCheck,
  type BackupReport,
  type BackupSource,
  backupFile,
  locateStore,
  restoreBackup,
  verifyBackup,
} from '@holdfast/coordinator'
import { keyRoutes, type keyWaySchema } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context, Outcome } from './command.ts'
import { clientFrom, readSaved } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import { age, moment } from './format.ts'
import type { Input } from './input.ts'
import { table } from './output.ts'
import { progressOf } from './progress.ts'
import { readInput, streamInput, unnamedFile } from './streams.ts'

type Way = z.output<typeof keyWaySchema>

/** `holdfast coordinator ways list` */
export async function waysListAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const { ways } = await client.call(keyRoutes.list)
  return { json: ways, text: await waysText(ways, context.clock.now()) }
}

async function waysText(ways: readonly Way[], now: number): Promise<string> {
  const rows = ways.map(({ id, kind, label, generation, state, provenAt }) => [
    id,
    kind,
    label,
    String(generation),
    state,
    age(provenAt, now),
  ])
  return await table(['ID', 'KIND', 'LABEL', 'GENERATION', 'STATE', 'LAST PROOF'], rows)
}

/** `holdfast coordinator ways add` */
export async function waysAddAction(input: Input, context: Context): Promise<Outcome> {
  const kind = wayKind(input.requiredWord(0, 'KIND'))
  const config = await configFrom(input.word(1) ?? '{}')
  using client = await clientFrom(input, context)
  const way = await client.call(keyRoutes.add, { body: { kind, config } })
  return { json: way, text: `added and proven: ${way.kind} ${way.id} (${way.label})` }
}

function wayKind(text: string): 'host-key' | 'tpm2' | 'tang' {
  if (text === 'host-key' || text === 'tpm2' || text === 'tang') return text
  throw cliFault('cli.usage', `"${text}" is not a way: host-key, tpm2 or tang`)
}

async function configFrom(text: string): Promise<Record<string, unknown>> {
  if (text !== '-' && !text.startsWith('@')) return parseJsonObject(text, 'CONFIG')
  const file = text.replace(/^@/, '')
  return parseJsonObject((await readInput(file, 1024 * 1024)).toString('utf8'), file)
}

/** `holdfast coordinator ways prove` */
export async function waysProveAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const params = { id: input.requiredWord(0, 'ID') }
  const way = await client.call(keyRoutes.prove, { params })
  return { json: way, text: `proven: ${way.kind} ${way.id} opens the data key` }
}

/** `holdfast coordinator ways remove` */
export async function waysRemoveAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const id = input.requiredWord(0, 'ID')
  const done = await client.call(keyRoutes.remove, { params: { id } })
  return { json: done, text: `removed ${id}` }
}

/** `holdfast coordinator rotate` */
export async function rotateAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const made = await client.call(keyRoutes.rotate)
  const text = `the data key has been replaced: generation ${made.generation}`
  return {
    json: made,
    text: `${text}\nnext: holdfast coordinator backup, older ones hold the old key`,
  }
}

/** `holdfast coordinator backup` */
export async function backupAction(input: Input, context: Context): Promise<Outcome> {
  const file = input.requiredText('out')
  using client = await clientFrom(input, context)
  using progress = await rowsShown(context)
  const check = new BackupCheck({ pinned: client.place.identity, progress: progress.rows })
  // It gets its name only when all of it has come and was checked.
  await writeDurable(file, check.pass(client.receive(keyRoutes.backup)), { mode: 0o600 })
  const report = check.report()
  return { json: { file, ...report }, text: `wrote ${file}, ${reportText(report)}` }
}

/** `holdfast coordinator verify-backup` */
export async function verifyBackupAction(input: Input, context: Context): Promise<Outcome> {
  const file = input.requiredWord(0, 'BUNDLE')
  const pinned = await pinOf(input, context)
  using progress = await rowsShown(context)
  const source = () => streamInput(file) ?? backupFile(file)()
  const report = await verifyBackup(source, { pinned, progress: progress.rows })
  return { json: report, text: `whole and signed, ${reportText(report)}` }
}

/** `holdfast coordinator restore` */
export async function restoreAction(input: Input, context: Context): Promise<Outcome> {
  const directory = input.requiredText('directory')
  const pinned = await pinOf(input, context)
  await using bundle = await readTwice(input.requiredWord(0, 'BUNDLE'), directory)
  using progress = await rowsShown(context)
  const report = await restoreBackup(bundle.source, {
    directory,
    store: await locateStore(directory, input.text('store') ?? 'sqlite'),
    clock: context.clock,
    ...{ pinned, progress: progress.rows },
  })
  return {
    json: { directory, ...report },
    text: `restored into ${directory}, ${reportText(report)}\nnext: holdfast coordinator serve --directory ${directory}, then holdfast coordinator recover`,
  }
}

/** A restore reads twice: what comes from a descriptor is kept meanwhile, in a file without a name. */
async function readTwice(
  path: string,
  directory: string,
): Promise<{ source: BackupSource } & AsyncDisposable> {
  const stream = streamInput(path)
  if (stream === undefined)
    return { source: backupFile(path), [Symbol.asyncDispose]: async () => undefined }
  // On the disk that will hold what is restored; the temporary one may be memory.
  await ensureDirectory(directory)
  const kept = await unnamedFile(directory)
  try {
    await kept.writeFile(stream)
  } catch (cause) {
    await kept.close()
    throw isFault(cause) ? cause : fileFault(directory, cause)
  }
  return {
    source: () => kept.createReadStream({ start: 0, autoClose: false }),
    [Symbol.asyncDispose]: () => kept.close(),
  }
}

/** Not worth showing before so many rows. */
const fewRows = 20_000

/** How far it has come, in twentieths. */
async function rowsShown(
  context: Context,
): Promise<{ rows: (done: number, of: number) => void } & Disposable> {
  const shown = await progressOf(context, 100)
  let last = 0
  return {
    rows: (done, of) => {
      const hundredths = of < fewRows ? 0 : 5 * Math.floor((20 * done) / of)
      if (hundredths > last) shown.update(hundredths, `${done} of ${of} rows`)
      last = Math.max(last, hundredths)
    },
    [Symbol.dispose]: () => shown[Symbol.dispose](),
  }
}

async function pinOf(input: Input, context: Context): Promise<string | undefined> {
  return input.text('identity') ?? (await readSaved(context))?.identity
}

function reportText(report: BackupReport): string {
  const { cluster, name, generation, at, bundle, identity, holders, ways, audit } = report
  const people =
    holders !== undefined
      ? `${holders.threshold} of ${holders.names.join(', ')}`
      : 'none: only its automatic ways open it'
  return [
    `made ${moment(at)}${bundle === undefined ? '' : `, bundle ${bundle}`}`,
    `cluster   ${name} ${cluster}, generation ${generation}`,
    `identity  ${identity}`,
    `holders   ${people}`,
    `ways      ${ways.map(({ kind, label }) => `${kind} (${label})`).join(', ')}`,
    `audit     ${audit.entries} entries, unbroken`,
  ].join('\n')
}
