import { createHash } from 'node:crypto'
import { type Clock, canonicalJson, defined, isFault } from '@holdfast/base'
import type { Selectable } from 'kysely'
import type { Database, Store, Work } from './store.ts'
import type { AuditTable } from './tables.ts'

// The audit log: a hash chain over every change, recovery step, secret read and failure, also while
// sealed. Each entry's hash covers the entry before it. It is written in the same transaction as what
// it tells of, so that neither can exist without the other; a failure is written on its own.

export interface AuditEvent {
  actor: string
  action: string
  subject: string
  outcome: 'done' | 'refused' | 'failed'
  /** Public facts only. */
  data?: Record<string, unknown>
}

type Entry = Selectable<AuditTable>

const beginning = createHash('sha256').update('holdfast audit 1').digest('base64url')

/** SHA-256 of the entry without its hash, as canonical JSON, base64url. */
function entryHash(entry: Omit<Entry, 'hash'>): string {
  const { sequence, at, actor, action, subject, outcome, data, previous } = entry
  return createHash('sha256')
    .update(canonicalJson({ sequence, at, actor, action, subject, outcome, data, previous }))
    .digest('base64url')
}

/** Appends to the chain inside a transaction. */
export async function record(work: Work, clock: Clock, event: AuditEvent): Promise<void> {
  const last = await work
    .selectFrom('audit')
    .select(['sequence', 'hash'])
    .orderBy('sequence', 'desc')
    .limit(1)
    .executeTakeFirst()
  const entry = {
    sequence: (last?.sequence ?? 0) + 1,
    at: clock.now(),
    actor: storable(event.actor, 200),
    action: event.action,
    subject: storable(event.subject, 300),
    outcome: event.outcome,
    data: canonicalJson(event.data ?? {}),
    previous: last?.hash ?? beginning,
  }
  await work
    .insertInto('audit')
    .values({ ...entry, hash: entryHash(entry) })
    .execute()
}

/**
 * A text as every engine gives it back. Half a character, or a zero byte in PostgreSQL, would come back
 * as another one, and the entry's hash would not fit it any more.
 */
function storable(text: string, most: number): string {
  return text.slice(0, most).toWellFormed().replaceAll('\0', '\ufffd')
}

/** Appends in a transaction of its own: refusals, failures, reads. */
export async function recordAlone(store: Store, clock: Clock, event: AuditEvent): Promise<void> {
  await store.write((work) => record(work, clock, event))
}

/** Reads something and records that it was read, or that it could not be. */
export async function recordReading<T>(
  store: Store,
  clock: Clock,
  event: Omit<AuditEvent, 'outcome' | 'data'>,
  read: () => Promise<T>,
): Promise<T> {
  try {
    const value = await read()
    await recordAlone(store, clock, { ...event, outcome: 'done' })
    return value
  } catch (error) {
    if (!isFault(error)) throw error
    await recordAlone(store, clock, { ...event, outcome: 'failed', data: { code: error.code } })
    throw error
  }
}

export interface AuditVerdict {
  entries: number
  intact: boolean
  /** How many explicit repairs of a torn tail the chain tells of. */
  repairs: number
  firstBroken?: number
}

/** Follows the chain entry by entry; pure, so that an exported log can be checked anywhere. */
export class ChainCheck {
  #previous = beginning
  #sequence = 0
  #repairs = 0
  #firstBroken: number | undefined

  /** @param from the entry that the next one must follow; without it the log's beginning */
  constructor(from?: Pick<Entry, 'sequence' | 'hash'>) {
    if (from === undefined) return
    this.#previous = from.hash
    this.#sequence = from.sequence
  }

  /** Takes the next entry; false once the chain is broken. */
  take(entry: Entry): boolean {
    if (this.#firstBroken !== undefined) return false
    const follows = entry.sequence === this.#sequence + 1 && entry.previous === this.#previous
    if (!follows || entryHash(entry) !== entry.hash) {
      this.#firstBroken = entry.sequence
      return false
    }
    if (entry.action === 'audit.repair') this.#repairs += 1
    this.#previous = entry.hash
    this.#sequence = entry.sequence
    return true
  }

  get verdict(): AuditVerdict {
    const firstBroken = this.#firstBroken
    const entries = this.#sequence
    const repairs = this.#repairs
    return { entries, intact: firstBroken === undefined, repairs, ...defined({ firstBroken }) }
  }
}

/** Checks a whole log, from its first entry; it stops at the first that does not follow. */
export function verifyChain(entries: Iterable<Entry>): AuditVerdict {
  const check = new ChainCheck()
  for (const entry of entries) if (!check.take(entry)) break
  return check.verdict
}

const entriesAtOnce = 1000

/** Entries after a sequence number, in order, in pages: a log may be larger than memory. */
export async function* entriesAfter(database: Database, after: number): AsyncGenerator<Entry> {
  for (let last = after; ; ) {
    const page = await database
      .selectFrom('audit')
      .selectAll()
      .where('sequence', '>', last)
      .orderBy('sequence')
      .limit(entriesAtOnce)
      .execute()
    yield* page
    last = page.at(-1)?.sequence ?? last
    if (page.length < entriesAtOnce) return
  }
}

/** Checks the log in the store, page by page; it stops at the first entry that does not follow. */
export async function verifyAudit(database: Database): Promise<AuditVerdict> {
  const check = new ChainCheck()
  for await (const entry of entriesAfter(database, 0)) if (!check.take(entry)) break
  return check.verdict
}

/** The highest sequence number; 0 when the log is empty. */
export async function newestEntry(database: Database | Work): Promise<number> {
  const row = await database
    .selectFrom('audit')
    .select(({ fn }) => fn.max('sequence').as('newest'))
    .executeTakeFirst()
  return Number(row?.newest ?? 0)
}

/** A break further up is no torn tail: it stays as it is, for people to look at. */
const longestTail = 16

/**
 * Cuts a tail that no longer follows from the chain and says so in a new entry, which names what was
 * cut by its hashes. Run at start: an interrupted copy or restore can leave one. A break further up
 * is evidence and is never touched; only a tail is looked at, so that a long log delays no start.
 */
export async function repairTail(store: Store, clock: Clock): Promise<number> {
  if ((await tornTail(store.read)).length === 0) return 0
  return await store.write(async (work) => {
    // Looked at again: another instance that starts as well may have repaired it by now.
    const torn = await tornTail(work)
    const [first] = torn
    if (first === undefined) return 0
    const { sequence } = first
    await work.deleteFrom('audit').where('sequence', '>=', sequence).execute()
    // These numbers are given again: sinks must take what they stand for then.
    const before = await newestEntry(work)
    await work
      .updateTable('sinks')
      .set({ position: before })
      .where('position', '>', before)
      .execute()
    await record(work, clock, {
      actor: 'coordinator',
      action: 'audit.repair',
      subject: `entry ${sequence}`,
      outcome: 'done',
      data: { removed: torn.length, hashes: torn.map(({ hash }) => hash) },
    })
    return torn.length
  })
}

/** The last entries, from the first that does not follow; none when that is further up than a tail. */
async function tornTail(database: Database | Work): Promise<Entry[]> {
  const newest = await database
    .selectFrom('audit')
    .selectAll()
    .orderBy('sequence', 'desc')
    .limit(longestTail + 1)
    .execute()
  const entries = newest.reverse()
  // Of a longer log the first one read is what the others must follow from.
  const check = new ChainCheck(entries.length > longestTail ? entries.shift() : undefined)
  const first = entries.findIndex((entry) => !check.take(entry))
  return first < 0 ? [] : entries.slice(first)
}
