import { createHash, randomBytes } from 'node:crypto'
import type { Clock } from '@holdfast/base'
import type { inviteSchema } from '@holdfast/protocol'
import type { Selectable } from 'kysely'
import type { z } from 'zod'
import { record } from './audit.ts'
import { nodeFault } from './nodes-faults.ts'
import type { Database, Work } from './store.ts'
import type { InviteTable } from './tables.ts'
import { newId } from './ways.ts'

// Invites: what lets a node in, apart from its code. Only the token's digest is stored. A use is
// reserved when an enrolment begins, committed when the node has proven its vault, and given back
// when the enrolment fails; what is reserved is counted from the enrolments themselves, so no
// counter can go wrong.

export type Invite = z.infer<typeof inviteSchema>

/** Enrolments in these states hold a use of their invite. */
export const activeStates = ['reserved', 'sent', 'formatting', 'proving'] as const

export interface NewInvite {
  label: string
  minutes: number
  uses: number
  /** The failure domain of the nodes that come with it. */
  domain?: string | undefined
}

/** Makes an invite. The token is returned here and never again. */
export async function createInvite(
  work: Work,
  clock: Clock,
  wanted: NewInvite,
  by: string,
): Promise<Invite & { token: string }> {
  const token = `hfi_${randomBytes(24).toString('base64url')}`
  const row = {
    id: newId(),
    hash: tokenHash(token),
    label: wanted.label,
    expires: clock.now() + wanted.minutes * 60_000,
    uses: wanted.uses,
    used: 0,
    domain: wanted.domain ?? null,
    created_by: by,
    revoked: 0,
  }
  await work.insertInto('invites').values(row).execute()
  await record(work, clock, {
    actor: by,
    action: 'invite.create',
    subject: row.id,
    outcome: 'done',
    data: { label: row.label, uses: row.uses, expires: row.expires },
  })
  return { ...shownInvite(row, 0), token }
}

/** Every invite that is not revoked, newest end first. */
export async function listInvites(database: Database | Work): Promise<Invite[]> {
  const rows = await database
    .selectFrom('invites')
    .selectAll()
    .where('revoked', '=', 0)
    .orderBy('expires', 'desc')
    .orderBy('label')
    .orderBy('id')
    .execute()
  const reserved = await database
    .selectFrom('enrolments')
    .select(['invite', ({ fn }) => fn.countAll<number>().as('count')])
    .where('state', 'in', activeStates)
    .groupBy('invite')
    .execute()
  const counts = new Map(reserved.map(({ invite, count }) => [invite, Number(count)]))
  return rows.map((row) => shownInvite(row, counts.get(row.id) ?? 0))
}

/** Nobody new comes in with it; enrolments that have begun go on. @throws Fault invite.unknown */
export async function revokeInvite(
  work: Work,
  clock: Clock,
  id: string,
  by: string,
): Promise<void> {
  const { numUpdatedRows } = await work
    .updateTable('invites')
    .set({ revoked: 1 })
    .where('id', '=', id)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) throw unknown()
  await record(work, clock, { actor: by, action: 'invite.revoke', subject: id, outcome: 'done' })
}

/**
 * Finds the invite of a token and checks that it has a use left. Call it in the transaction that
 * inserts the enrolment: of two that race for the last use, one fails.
 * @throws Fault invite.unknown, invite.revoked, invite.expired, invite.used_up
 */
export async function usableInvite(
  work: Work,
  now: number,
  token: string,
): Promise<Selectable<InviteTable>> {
  const invite = await work
    .selectFrom('invites')
    .selectAll()
    .where('hash', '=', tokenHash(token))
    .executeTakeFirst()
  if (invite === undefined) throw unknown()
  const hint = 'make a new one: POST /v1/invites'
  if (invite.revoked !== 0)
    throw nodeFault('invite.revoked', 'the invite has been revoked', { hint })
  if (invite.expires <= now) throw nodeFault('invite.expired', 'the invite has expired', { hint })
  const { count } = await work
    .selectFrom('enrolments')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('invite', '=', invite.id)
    .where('state', 'in', activeStates)
    .executeTakeFirstOrThrow()
  if (invite.used + Number(count) >= invite.uses) {
    const text = `the invite was made for ${invite.uses}: ${invite.used} used, ${count} under way`
    throw nodeFault('invite.used_up', text, { hint })
  }
  return invite
}

/** The node has come in: the use is spent for good. */
export async function commitUse(work: Work, invite: string): Promise<void> {
  await work
    .updateTable('invites')
    .set(({ eb }) => ({ used: eb('used', '+', 1) }))
    .where('id', '=', invite)
    .execute()
}

/** The token has 192 random bits, so a plain digest keeps it. */
function tokenHash(token: string): string {
  return createHash('sha256').update(token.trim()).digest('base64url')
}

function shownInvite(row: Selectable<InviteTable>, reserved: number): Invite {
  const { id, label, expires, uses, used, domain } = row
  return { id, label, expires, uses, used, reserved, ...(domain === null ? {} : { domain }) }
}

function unknown(): Error {
  return nodeFault('invite.unknown', 'there is no such invite', {
    hint: 'list them: holdfast node invites',
  })
}
