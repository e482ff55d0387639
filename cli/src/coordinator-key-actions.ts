import { parseJsonObject, writeDurable } from '@holdfast/base'
import { type BackupReport, locateStore, restoreBackup, verifyBackup } from '@holdfast/coordinator'
import { keyRoutes, type keyWaySchema } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context, Outcome } from './command.ts'
import { clientFrom, readSaved } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import { age, moment } from './format.ts'
import type { Input } from './input.ts'
import { table } from './output.ts'
import { readInput } from './streams.ts'

type Way = z.output<typeof keyWaySchema>

const largestBackup = 512 * 1024 * 1024

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
  const { bundle, digest } = await client.call(keyRoutes.backup)
  const report = verifyBackup(bundle, client.place.identity)
  await writeDurable(file, bundle, { mode: 0o600 })
  return { json: { file, digest, ...report }, text: `wrote ${file}, ${reportText(report)}` }
}

/** `holdfast coordinator verify-backup` */
export async function verifyBackupAction(input: Input, context: Context): Promise<Outcome> {
  const report = verifyBackup(await bundleFrom(input), await pinOf(input, context))
  return { json: report, text: `whole and signed, ${reportText(report)}` }
}

/** `holdfast coordinator restore` */
export async function restoreAction(input: Input, context: Context): Promise<Outcome> {
  const directory = input.requiredText('directory')
  const pinned = await pinOf(input, context)
  const report = await restoreBackup(await bundleFrom(input), {
    directory,
    store: await locateStore(directory, input.text('store') ?? 'sqlite'),
    clock: context.clock,
    ...(pinned === undefined ? {} : { pinned }),
  })
  return {
    json: { directory, ...report },
    text: `restored into ${directory}, ${reportText(report)}\nnext: holdfast coordinator serve --directory ${directory}, then holdfast coordinator recover`,
  }
}

async function pinOf(input: Input, context: Context): Promise<string | undefined> {
  return input.text('identity') ?? (await readSaved(context))?.identity
}

async function bundleFrom(input: Input): Promise<string> {
  return (await readInput(input.requiredWord(0, 'BUNDLE'), largestBackup)).toString('utf8')
}

function reportText(report: BackupReport): string {
  const { cluster, name, generation, at, identity, holders, ways, audit } = report
  const people =
    holders !== undefined
      ? `${holders.threshold} of ${holders.names.join(', ')}`
      : 'none: only its automatic ways open it'
  return [
    `made ${moment(at)}`,
    `cluster   ${name} ${cluster}, generation ${generation}`,
    `identity  ${identity}`,
    `holders   ${people}`,
    `ways      ${ways.map(({ kind, label }) => `${kind} (${label})`).join(', ')}`,
    `audit     ${audit.entries} entries, unbroken`,
  ].join('\n')
}
