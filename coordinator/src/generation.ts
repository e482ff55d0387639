import { type Clock, Secret } from '@holdfast/base'
import { type Pins, policyOf } from '@holdfast/seal'
import type { Insertable, Selectable } from 'kysely'
import { DataKey } from './data-key.ts'
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
}

const candidateRow = 2

/** Prepares the next generation, with these holders or the present ones. Replaces an earlier candidate. */
export async function prepareGeneration(
  deps: Sealed,
  current: { header: Header; digest: string; key: DataKey },
  holders: Header['holders'],
): Promise<Candidate> {
  const { store, identity } = deps
  const generation = current.header.generation + 1
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
  const ways = await nextWays(deps, next, context, holders)
  await store.write(async (work) => {
    await work.deleteFrom('ways').where('generation', '=', generation).execute()
    await work.deleteFrom('header').where('id', '=', candidateRow).execute()
    await work
      .insertInto('header')
      .values({ id: candidateRow, ...signed, digest, version: generation })
      .execute()
    await work.insertInto('ways').values(ways).execute()
    using raw = next.copy()
    await writeSecret(work, current.key, header.cluster, 'next-data-key', raw)
  })
  return { header, signed, digest }
}

async function nextWays(
  { store, pins, clock }: Sealed,
  key: DataKey,
  context: KeyContext,
  holders: Header['holders'],
): Promise<Insertable<WayTable>[]> {
  const rows = await automaticWays(store.read)
  const made = rows.map(
    (row) => makeWay(pins, row.kind as WayKind, policyOf(pins, row.sealed), key, context, clock), // makeWay alone writes kinds
  )
  const people =
    holders === undefined
      ? []
      : [makeWay(pins, 'holders', holdersPolicy(holders), key, context, clock)]
  const ways = await Promise.all([...made, ...people])
  return ways.map((way) => ({ ...way, state: 'prepared' }))
}

async function automaticWays(database: Database): Promise<Selectable<WayTable>[]> {
  return await database
    .selectFrom('ways')
    .selectAll()
    .where('kind', '!=', 'holders')
    .where('state', '=', 'active')
    .execute()
}

/** Makes the prepared generation the current one; the caller has checked that it may. */
export async function activateGeneration(
  deps: Sealed,
  current: { header: Header; key: DataKey },
  also: (work: Work) => Promise<void>,
): Promise<{ header: Header; digest: string; key: DataKey }> {
  const { store, identity } = deps
  const cluster = current.header.cluster
  return await store.write(async (work) => {
    const row = await work
      .selectFrom('header')
      .selectAll()
      .where('id', '=', candidateRow)
      .executeTakeFirstOrThrow()
    const header = readHeader(row, identity.publicKey)
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

/** The prepared generation, if one waits for its holders. */
export async function readCandidate(
  database: Database,
): Promise<(SignedHeader & { digest: string }) | undefined> {
  return await database
    .selectFrom('header')
    .select(['body', 'signature', 'digest'])
    .where('id', '=', candidateRow)
    .executeTakeFirst()
}
