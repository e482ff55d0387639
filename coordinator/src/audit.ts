import { createHash } from 'node:crypto'
import { type Clock, canonicalJson } from '@holdfast/base'
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
export function entryHash(entry: Omit<Entry, 'hash'>): string {
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
    actor: event.actor.slice(0, 200),
    action: event.action,
    subject: event.subject.slice(0, 300),
    outcome: event.outcome,
    data: canonicalJson(event.data ?? {}),
    previous: last?.hash ?? beginning,
  }
  await work
    .insertInto('audit')
    .values({ ...entry, hash: entryHash(entry) })
    .execute()
}

/** Appends in a transaction of its own: refusals, failures, reads. */
export async function recordAlone(store: Store, clock: Clock, event: AuditEvent): Promise<void> {
  await store.write((work) => record(work, clock, event))
}

export interface AuditVerdict {
  entries: number
  intact: boolean
  /** How many explicit repairs of a torn tail the chain tells of. */
  repairs: number
  firstBroken?: number
}

/** Follows the chain over entries in order. Pure, so that an exported log can be checked anywhere. */
export function verifyChain(entries: Iterable<Entry>): AuditVerdict {
  let previous = beginning
  let sequence = 0
  let repairs = 0
  for (const entry of entries) {
    const follows = entry.sequence === sequence + 1 && entry.previous === previous
    if (!follows || entryHash(entry) !== entry.hash) {
      return { entries: sequence, intact: false, repairs, firstBroken: entry.sequence }
    }
    if (entry.action === 'audit.repair') repairs += 1
    previous = entry.hash
    sequence = entry.sequence
  }
  return { entries: sequence, intact: true, repairs }
}

export async function verifyAudit(database: Database): Promise<AuditVerdict> {
  return verifyChain(await database.selectFrom('audit').selectAll().orderBy('sequence').execute())
}

/** More than this is no torn tail: it stays as it is, for people to look at. */
const longestTail = 16

/**
 * Cuts a tail that no longer follows from the chain and says so in a new entry, which names what was
 * cut by its hashes. Run at start: an interrupted copy or restore can leave one. A break further up
 * is evidence and is never touched.
 */
export async function repairTail(store: Store, clock: Clock): Promise<number> {
  const verdict = await verifyAudit(store.read)
  const { firstBroken } = verdict
  if (verdict.intact || firstBroken === undefined) return 0
  return await store.write(async (work) => {
    const torn = await work
      .selectFrom('audit')
      .select(['sequence', 'hash'])
      .where('sequence', '>=', firstBroken)
      .execute()
    if (torn.length > longestTail) return 0
    await work.deleteFrom('audit').where('sequence', '>=', firstBroken).execute()
    const data = { removed: torn.length, hashes: torn.map(({ hash }) => hash).slice(0, 100) }
    await record(work, clock, {
      actor: 'coordinator',
      action: 'audit.repair',
      subject: `entry ${firstBroken}`,
      outcome: 'done',
      data,
    })
    return torn.length
  })
}
