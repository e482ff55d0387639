import { createHash } from 'node:crypto'
import { type Clock, isObject, parseJsonObject } from '@holdfast/base'
import type { CeremonyKind, CeremonyState } from '@holdfast/protocol'
import type { Selectable } from 'kysely'
import { ceremonyFault } from './ceremony-faults.ts'
import type { Header } from './header.ts'
import type { Store, Work } from './store.ts'
import type { CeremonyTable } from './tables.ts'

// The record of a ceremony as it lies in the store, and how it is read.

export interface Ceremony {
  id: string
  kind: CeremonyKind
  state: CeremonyState
  digest: string
  nonce: string
  generation: number
  threshold: number
  /** Who may answer: names with public keys, as they were when the ceremony began. */
  holders: readonly { name: string; key: string }[]
  answered: { holder: string; at: number }[]
  rejected: { holder: string; code: string; at: number }[]
  /** Wrong answers per holder, so that one person cannot occupy the ceremony. */
  attempts: Record<string, number>
  created: number
  expires: number
  detail: Record<string, unknown>
}

export interface CeremonyDeps {
  store: Store
  clock: Clock
  cluster: () => string
}

type Answered = { ceremony: string; holder: string; at: number }

/** @throws Fault ceremony.unknown */
export async function readCeremony({ store }: CeremonyDeps, id: string): Promise<Ceremony> {
  const row = await store.read
    .selectFrom('ceremonies')
    .selectAll()
    .where('id', '=', id)
    .where('state', '!=', 'proof')
    .executeTakeFirst()
  if (row === undefined) throw ceremonyFault('ceremony.unknown', `there is no ceremony ${id}`)
  return await withAnswers(store.read, row)
}

const mostListed = 100

/** The latest ceremonies; anybody may ask for them, so it is two queries for all. */
export async function listCeremonies(
  { store }: CeremonyDeps,
  states?: readonly CeremonyState[],
): Promise<Ceremony[]> {
  let query = store.read
    .selectFrom('ceremonies')
    .selectAll()
    .where('state', '!=', 'proof') // a holder's open challenge lies in the same table
    .orderBy('created', 'desc')
    .orderBy('id')
    .limit(mostListed)
  if (states !== undefined) query = query.where('state', 'in', [...states])
  const rows = await query.execute()
  const answers = await answersOf(store.read, rows)
  return rows.map((row) => ceremonyOf(row, answers))
}

/** A stored ceremony with those who have answered it. */
export async function withAnswers(
  database: Store['read'] | Work,
  row: Selectable<CeremonyTable>,
): Promise<Ceremony> {
  return ceremonyOf(row, await answersOf(database, [row]))
}

async function answersOf(
  database: Store['read'] | Work,
  rows: readonly { id: string }[],
): Promise<Answered[]> {
  if (rows.length === 0) return []
  return await database
    .selectFrom('answers')
    .select(['ceremony', 'holder', 'at'])
    .where(
      'ceremony',
      'in',
      rows.map(({ id }) => id),
    )
    .where('code', '=', 'accepted')
    .orderBy('at')
    .orderBy('holder')
    .execute()
}

function ceremonyOf(row: Selectable<CeremonyTable>, answers: readonly Answered[]): Ceremony {
  const stored = parseJsonObject(row.detail, 'the ceremony')
  const { holders, rejected: _kept, attempts: _counted, ...detail } = stored
  return {
    id: row.id,
    kind: row.kind as CeremonyKind, // written from that type alone
    state: row.state as CeremonyState, // likewise
    digest: row.digest,
    nonce: row.nonce,
    generation: row.generation,
    threshold: row.threshold,
    holders: Array.isArray(holders) ? holders : [],
    answered: answers
      .filter(({ ceremony }) => ceremony === row.id)
      .map(({ holder, at }) => ({ holder, at })),
    rejected: rejectedOf(stored),
    attempts: attemptsOf(stored),
    created: row.created,
    expires: row.expires,
    detail,
  }
}

export function rejectedOf(detail: Record<string, unknown>): Ceremony['rejected'] {
  return Array.isArray(detail.rejected) ? detail.rejected : []
}

export function attemptsOf({ attempts }: Record<string, unknown>): Record<string, number> {
  if (!isObject(attempts)) return {}
  return Object.fromEntries(
    Object.entries(attempts).filter(
      (entry): entry is [string, number] => typeof entry[1] === 'number',
    ),
  )
}

/** What a recovery is about: the sealed state as it lies in the store. */
export function stateDigest(headerDigest: string, ways: readonly { sealed: string }[]): string {
  const hash = createHash('sha256').update(`${headerDigest}\n`)
  for (const sealed of ways.map((way) => way.sealed).sort()) hash.update(`${sealed}\n`)
  return hash.digest('base64url')
}

/** The header's holders as ceremonies need them. */
export function ceremonyHolders(header: Header): { name: string; key: string }[] {
  return (header.holders?.list ?? []).map(({ name, key }) => ({ name, key }))
}
