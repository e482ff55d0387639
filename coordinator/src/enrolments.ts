import type { Clock } from '@holdfast/base'
import type { NodeReport } from '@holdfast/protocol/frames'
import type { Selectable } from 'kysely'
import { record } from './audit.ts'
import { activeStates, commitUse, usableInvite } from './invites.ts'
import { keepAddress, releaseAddress } from './leases.ts'
import { deleteNode } from './nodes.ts'
import { nodeFault } from './nodes-faults.ts'
import type { Database, Store, Work } from './store.ts'
import type { EnrolmentTable } from './tables.ts'
import { newId } from './ways.ts'

// Enrolments in the store. `reserved` (a use of the invite is held) -> `sent` (the node has accepted)
// -> `formatting` -> `proving` -> `enrolled`, which is only said after the node has closed its vault
// and opened it again. Whatever fails, or comes no further for half an hour, gives the use, the name
// and the address back.

export type EnrolmentRow = Selectable<EnrolmentTable>
export type EnrolmentState = 'reserved' | 'sent' | 'formatting' | 'proving' | 'enrolled' | 'failed'

/** Milliseconds that an enrolment may stay where it is. */
export const enrolmentPatience = 30 * 60_000

export interface EnrolmentRequest {
  invite: string
  address: string
  name: string
  genesis: boolean
}

const hour = 60 * 60_000

/**
 * Reserves a use of the invite.
 * @param mostPerHour enrolments that the manifest allows to begin in an hour
 * @throws Fault invite.*, enrolment.too_many
 */
export async function beginEnrolment(
  work: Work,
  clock: Clock,
  request: EnrolmentRequest,
  by: string,
  mostPerHour = Number.MAX_SAFE_INTEGER,
): Promise<{ id: string; domain: string | null }> {
  const now = clock.now()
  const { count } = await work
    .selectFrom('enrolments')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('created', '>', now - hour)
    .executeTakeFirstOrThrow()
  if (Number(count) >= mostPerHour)
    throw nodeFault('enrolment.too_many', `${count} enrolments have begun within the last hour`, {
      hint: 'wait, or allow more in the manifest: limits.enrolmentsPerHour',
    })
  const invite = await usableInvite(work, now, request.invite)
  const row = {
    id: newId(),
    invite: invite.id,
    address: request.address,
    name: request.name,
    state: 'reserved',
    created: now,
    expires: now + enrolmentPatience,
    genesis: request.genesis ? 1 : 0,
    by,
  }
  await work.insertInto('enrolments').values(row).execute()
  const { address, name } = request
  await record(work, clock, {
    actor: by,
    action: 'enrolment.begin',
    subject: row.id,
    outcome: 'done',
    data: { invite: invite.id, address, name },
  })
  return { id: row.id, domain: invite.domain }
}

/** @throws Fault enrolment.unknown */
export async function getEnrolment(database: Database | Work, id: string): Promise<EnrolmentRow> {
  const row = await database
    .selectFrom('enrolments')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
  if (row !== undefined) return row
  throw nodeFault('enrolment.unknown', `there is no enrolment ${id}`)
}

const order: readonly EnrolmentState[] = ['reserved', 'sent', 'formatting', 'proving', 'enrolled']

/**
 * What a node's report says about its enrolment. A vault counts as proven when the node is open and
 * at least one way into it has been used after closing it.
 */
export function enrolmentStateOf(report: Pick<NodeReport, 'phase' | 'ways'>): EnrolmentState {
  switch (report.phase) {
    case 'enrolling':
      return report.ways.length === 0 ? 'formatting' : 'proving'
    case 'locked':
      return 'proving'
    case 'open':
      return report.ways.some(({ state }) => state === 'proven') ? 'enrolled' : 'proving'
    case 'factory':
    case 'rescue':
    case 'left':
    case 'wiped':
      return 'failed'
    default:
      return report.phase satisfies never
  }
}

/** The state after a report: never backwards, and an end is an end. */
export function nextEnrolmentState(now: EnrolmentState, reported: EnrolmentState): EnrolmentState {
  if (now === 'enrolled' || now === 'failed') return now
  if (reported === 'failed') return 'failed'
  return order.indexOf(reported) > order.indexOf(now) ? reported : now
}

/** Follows a node that is being enrolled. Says which state its enrolment is in now, if it has one. */
export async function followEnrolment(
  work: Work,
  clock: Clock,
  node: string,
  report: NodeReport,
): Promise<EnrolmentState | undefined> {
  const row = await activeEnrolment(work, node)
  if (row === undefined) return undefined
  const current = row.state as EnrolmentState // only this file writes the column
  const state = nextEnrolmentState(current, enrolmentStateOf(report))
  if (state === current) return state
  if (state === 'failed') {
    const message = report.lastErrors[0] ?? `the node is ${report.phase} again`
    await failEnrolment(work, clock, row.id, 'enrolment.node_failed', message)
    return state
  }
  const expires = clock.now() + enrolmentPatience
  await work.updateTable('enrolments').set({ state, expires }).where('id', '=', row.id).execute()
  if (state === 'enrolled') {
    await commitUse(work, row.invite)
    await keepAddress(work, node)
    await record(work, clock, {
      actor: `node:${node}`,
      action: 'enrolment.done',
      subject: row.id,
      outcome: 'done',
      data: { node, name: row.name, ways: report.ways.length },
    })
  }
  return state
}

/** True while an enrolment of the node is under way. */
export async function isEnrolling(database: Database, node: string): Promise<boolean> {
  return (await activeEnrolment(database, node)) !== undefined
}

async function activeEnrolment(
  work: Database | Work,
  node: string,
): Promise<EnrolmentRow | undefined> {
  return await work
    .selectFrom('enrolments')
    .selectAll()
    .where('node', '=', node)
    .where('state', 'in', activeStates)
    .executeTakeFirst()
}

/** Ends an enrolment and gives back what it held. Does nothing to one that has ended. */
export async function failEnrolment(
  work: Work,
  clock: Clock,
  id: string,
  code: string,
  message: string,
): Promise<void> {
  const row = await getEnrolment(work, id)
  if (row.state === 'enrolled' || row.state === 'failed') return
  await work
    .updateTable('enrolments')
    .set({ state: 'failed', code, message: message.slice(0, 500) })
    .where('id', '=', id)
    .execute()
  if (row.node !== null) {
    await releaseAddress(work, row.node)
    await deleteNode(work, row.node)
  }
  const data = { code, node: row.node, address: row.address, was: row.state }
  await record(work, clock, {
    actor: row.by,
    action: 'enrolment.fail',
    subject: id,
    outcome: 'failed',
    data,
  })
}

/** Forgets enrolments that ended long ago; the audit log keeps that they were. */
export async function pruneEnrolments(work: Work, before: number): Promise<void> {
  await work
    .deleteFrom('enrolments')
    .where('state', 'in', ['enrolled', 'failed'])
    .where('created', '<', before)
    .execute()
}

/** Fails every enrolment that has come no further in time. Returns how many. */
export async function expireEnrolments(store: Store, clock: Clock): Promise<number> {
  const due = await store.read
    .selectFrom('enrolments')
    .select('id')
    .where('state', 'in', activeStates)
    .where('expires', '<=', clock.now())
    .orderBy('expires')
    .orderBy('id')
    .execute()
  for (const { id } of due) {
    await store.write(async (work) => {
      const row = await getEnrolment(work, id)
      if (row.expires > clock.now()) return
      const text = 'the node has come no further for half an hour'
      await failEnrolment(work, clock, id, 'enrolment.expired', text)
    })
  }
  return due.length
}
