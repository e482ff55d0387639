import { dirname, resolve } from 'node:path'
import { isObject, parseJsonObject } from '@holdfast/base'
import { manifestDigest, readManifest } from '@holdfast/coordinator'
import { manifestRoutes } from '@holdfast/protocol'
import { ceremonyText } from './ceremony-text.ts'
import type { Context, Outcome } from './command.ts'
import { clientFrom } from './coordinator-place.ts'
import { cliFault } from './faults.ts'
import { moment } from './format.ts'
import type { Input } from './input.ts'
import { table } from './output.ts'
import { readInput } from './streams.ts'

const largestManifest = 4 * 1024 * 1024

/** `holdfast manifest set` */
export async function setAction(input: Input, context: Context): Promise<Outcome> {
  const manifest = await manifestFrom(input)
  readManifest(manifest)
  using client = await clientFrom(input, context)
  const { digest, ceremony } = await client.call(manifestRoutes.set, { body: { manifest } })
  if (ceremony === undefined)
    return { json: { digest, inForce: true }, text: `in force: digest ${digest}` }
  return { json: { digest, inForce: false, ceremony }, text: await ceremonyText(ceremony, context) }
}

/** `holdfast manifest get` */
export async function getAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const current = await client.call(manifestRoutes.get)
  return { json: current, text: JSON.stringify(current.manifest, null, 2) }
}

/** `holdfast manifest verify`: needs no coordinator. */
export async function verifyAction(input: Input): Promise<Outcome> {
  const manifest = readManifest(await manifestFrom(input))
  const digest = manifestDigest(manifest)
  const expected = input.text('digest')
  if (expected !== undefined && expected !== digest) {
    throw cliFault('cli.digest_differs', `the manifest's digest is ${digest}, not ${expected}`, {
      hint: 'it is not the manifest that the ceremony is about',
    })
  }
  return { json: { digest, cluster: manifest.cluster }, text: `valid: digest ${digest}` }
}

/** `holdfast manifest diff` */
export async function diffAction(input: Input, context: Context): Promise<Outcome> {
  const manifest = await manifestFrom(input)
  using client = await clientFrom(input, context)
  const found = await client.call(manifestRoutes.check, { body: { manifest } })
  const rows = found.changes.map(({ path, from, to }) => [
    path === '' ? 'the whole manifest' : path,
    brief(from),
    brief(to),
  ])
  const changes = rows.length === 0 ? 'nothing changes' : await table(['WHERE', 'FROM', 'TO'], rows)
  return {
    json: found,
    text: `${changes}\ndigest ${found.digest}, approvals needed: ${found.approvals}`,
  }
}

function brief(value: unknown): string {
  const text = (typeof value === 'string' ? value : JSON.stringify(value)).replace(/\s+/g, ' ')
  return text.length <= 40 ? text : `${text.slice(0, 39)}…`
}

/** `holdfast manifest history` */
export async function historyAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const { history } = await client.call(manifestRoutes.history)
  const rows = history.map(({ version, at, by, approvedBy, digest }) => [
    String(version),
    moment(at),
    by,
    approvedBy.join(', '),
    digest,
  ])
  return {
    json: history,
    text: await table(['VERSION', 'SINCE', 'SET BY', 'APPROVED BY', 'DIGEST'], rows),
  }
}

/** The manifest of the command line; a key that is written as `@FILE` is read from beside it. */
async function manifestFrom(input: Input): Promise<Record<string, unknown>> {
  const file = input.requiredWord(0, 'FILE')
  const text = (await readInput(file, largestManifest)).toString('utf8')
  const manifest = parseJsonObject(text, file, largestManifest)
  const folder = file === '-' ? '.' : dirname(file)
  const { holders, releases } = manifest
  return {
    ...manifest,
    ...('holders' in manifest ? { holders: await withKeys(holders, folder) } : {}),
    ...('releases' in manifest ? { releases: await withKeys(releases, folder) } : {}),
  }
}

async function withKeys(section: unknown, folder: string): Promise<unknown> {
  if (!isObject(section) || !isObject(section.keys)) return section
  const keys = await Promise.all(
    Object.entries(section.keys).map(async ([name, key]): Promise<[string, unknown]> => {
      if (typeof key !== 'string' || !key.startsWith('@')) return [name, key]
      const pem = await readInput(resolve(folder, key.slice(1)), 64 * 1024)
      return [name, pem.toString('utf8')]
    }),
  )
  return { ...section, keys: Object.fromEntries(keys) }
}
