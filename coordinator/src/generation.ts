import { type Clock, messageOf, Secret } from '@holdfast/base'
import { type Pins, policyOf } from '@holdfast/seal'
import type { Insertable, Selectable } from 'kysely'
import { DataKey } from './data-key.ts'
import { coordinatorFault } from './faults.ts'
import { type Header, headerDigest, readHeader, type SignedHeader, signHeader } from './header.ts'
import type { Identity } from './identity.ts'
import { readSecret, reencryptSecrets, removeSecret, writeSecret } from './secrets.ts'
import type { Database, Store, Work } from './store.ts'
import type { WayTable } from './tables.ts'
import { holdersPolicy, type KeyContext, makeWay, type WayKind } from './ways.ts'

// Changing the data key, in two phases. Prepare makes the next generation's key, header and ways and
// stores them beside the current ones; nothing that works today is touched. Activate re-encrypts the
// secrets and makes the next generation current, in one transaction. Between the two, new holders
// prove their keys: new shares count only once enough of them have.

export interface Sealed {
  store: Store
  identity: Identity
  pins: Pins
  clock: Clock
}

/** The generation that is being prepared, as stored beside the current one. */
export interface Candidate {
  header: Header
  signed: SignedHeader
  digest: string
  /** Labels of ways that could not be made anew and were left out. */
  dropped: string[]
}

export interface GenerationOptions {
  /** The new generation's number is higher than this one, too: what nodes have witnessed. */
  above?: number
  /** Leave out ways that cannot be made anew here, rather than refuse. */
  dropBroken?: boolean
}

const candidateRow = 2

/**
 * Prepares the next generation with these holders. Replaces an earlier candidate, unless holders are
 * proving their shares of the very same one.
 * @throws Fault coordinator.way_unproven, coordinator.changed_meanwhile
 */
export async function prepareGeneration(
  deps: Sealed,
  current: { header: Header; digest: string; key: DataKey },
  holders: Header['holders'],
  options: GenerationOptions = {},
): Promise<Candidate> {
  const { store, identity } = deps
  const { above = 0, dropBroken = false } = options
  const generation = Math.max(current.header.generation, above) + 1
  const { version, cluster, name, authority } = current.header
  const people = holders === undefined ? {} : { holders }
  const header: Header = {
    version,
    cluster,
    name,
    authority,
    generation,
    previous: current.digest,
    ...people,
  }
  const signed = signHeader(header, identity.key)
  const digest = headerDigest(signed.body)
  using next = DataKey.random(generation)
  const context = { cluster: header.cluster, generation, headerDigest: digest }
  const dropped: string[] = []
  const broken = dropBroken ? (label: string) => dropped.push(label) : undefined
  const ways = await nextWays(deps, next, context, holders, broken)
  await store.write(async (work) => {
    await requireCurrent(work, current.digest)
    if (await isBeingProven(work, digest)) return
    await work.deleteFrom('ways').where('state', '=', 'prepared').execute()
    await work.deleteFrom('header').where('id', '=', candidateRow).execute()
    await work
      .insertInto('header')
      .values({ id: candidateRow, ...signed, digest, version: generation })
      .execute()
    await work.insertInto('ways').values(ways).execute()
    using raw = next.copy()
    await writeSecret(work, current.key, header.cluster, 'next-data-key', raw)
  })
  return { header, signed, digest, dropped }
}

/**
 * True when holders have been asked to prove their shares of the candidate of this digest. Whoever
 * prepares the same a second time, as the duty that resumes what a crash left may, must not put
 * other shares in the place of those.
 */
async function isBeingProven(work: Work, digest: string): Promise<boolean> {
  const asked = await work
    .selectFrom('ceremonies')
    .innerJoin('header', 'header.digest', 'ceremonies.digest')
    .select('ceremonies.id')
    .where('ceremonies.kind', '=', 'holders')
    .where('ceremonies.state', 'in', ['open', 'met'])
    .where('header.digest', '=', digest)
    .where('header.id', '=', candidateRow)
    .executeTakeFirst()
  return asked !== undefined
}

async function nextWays(
  { store, pins, clock }: Sealed,
  key: DataKey,
  context: KeyContext,
  holders: Header['holders'],
  broken?: (label: string) => void,
): Promise<Insertable<WayTable>[]> {
  const rows = await automaticWays(store.read)
  const made = rows.map(async (row) => {
    try {
      return { way: await remakeWay(row, pins, key, context, clock) }
    } catch (error) {
      if (broken === undefined) throw error
      return { broken: row.label }
    }
  })
  const people =
    holders === undefined
      ? []
      : [makeWay(pins, 'holders', holdersPolicy(holders), key, context, clock)]
  const ways: Insertable<WayTable>[] = []
  // Told in the order in which people see the ways, whichever failed first.
  for (const { way, broken: label } of await Promise.all(made))
    if (way !== undefined) ways.push(way)
    else if (label !== undefined) broken?.(label)
  ways.push(...(await Promise.all(people)))
  if (ways.length === 0)
    throw coordinatorFault('coordinator.last_way', 'no way to the next data key would be left', {
      hint: 'add an automatic way or set a manifest with holders',
    })
  return ways.map((way) => ({ ...way, state: 'prepared' }))
}

async function remakeWay(
  row: Selectable<WayTable>,
  pins: Pins,
  key: DataKey,
  context: KeyContext,
  clock: Clock,
): Promise<Insertable<WayTable>> {
  try {
    const policy = policyOf(pins, row.sealed)
    const kind = row.kind as WayKind // makeWay alone writes kinds
    // Made anew it is the same way, and keeps its place among the others.
    return { ...(await makeWay(pins, kind, policy, key, context, clock)), created: row.created }
  } catch (cause) {
    // Dropping it in silence would leave less than people believe they have.
    throw coordinatorFault(
      'coordinator.way_unproven',
      `the way ${row.label} cannot be made anew: ${messageOf(cause)}`,
      { cause, hint: `repair it, or remove it first: holdfast coordinator ways remove ${row.id}` },
    )
  }
}

/** @throws Fault coordinator.changed_meanwhile when another instance has made a new generation */
export async function requireCurrent(work: Work, digest: string): Promise<void> {
  const row = await work
    .selectFrom('header')
    .select('digest')
    .where('id', '=', 1)
    .executeTakeFirst()
  if (row?.digest !== digest) throw changedMeanwhile()
}

function changedMeanwhile(): Error {
  return coordinatorFault(
    'coordinator.changed_meanwhile',
    'the sealed state has been changed meanwhile, perhaps by another instance',
    { hint: 'look at it and try again: holdfast coordinator status' },
  )
}

async function automaticWays(database: Database): Promise<Selectable<WayTable>[]> {
  return await database
    .selectFrom('ways')
    .selectAll()
    .where('kind', '!=', 'holders')
    .where('state', '=', 'active')
    .orderBy('created')
    .orderBy('label')
    .orderBy('id')
    .execute()
}

/**
 * Makes the prepared generation of this digest the current one; the caller has checked that it may.
 * @throws Fault coordinator.changed_meanwhile
 */
export async function activateGeneration(
  deps: Sealed,
  current: { header: Header; digest: string; key: DataKey },
  digest: string,
  also: (work: Work) => Promise<void>,
): Promise<{ header: Header; digest: string; key: DataKey }> {
  const { store, identity } = deps
  const cluster = current.header.cluster
  return await store.write(async (work) => {
    await requireCurrent(work, current.digest)
    const row = await work
      .selectFrom('header')
      .selectAll()
      .where('id', '=', candidateRow)
      .executeTakeFirst()
    if (row?.digest !== digest) throw changedMeanwhile()
    const header = readHeader(row, identity.pinned)
    using raw = await readSecret(work, current.key, cluster, 'next-data-key')
    const key = new DataKey(header.generation, Secret.copy(raw.reveal()))
    await removeSecret(work, 'next-data-key')
    await reencryptSecrets(work, current.key, key, cluster)
    await work.deleteFrom('header').where('id', '=', 1).execute()
    await work.updateTable('header').set({ id: 1 }).where('id', '=', candidateRow).execute()
    await work.deleteFrom('ways').where('generation', '<', header.generation).execute()
    await work
      .updateTable('ways')
      .set({ state: 'active' })
      .where('generation', '=', header.generation)
      .execute()
    await also(work)
    return { header, digest: row.digest, key }
  })
}
