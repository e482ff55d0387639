import { createHash, randomBytes } from 'node:crypto'
import { type Clock, canonicalJson, parseJson, type Secret } from '@holdfast/base'
import { type Role, roles } from '@holdfast/protocol'
import { record } from './audit.ts'
import { forgetFailures } from './login-attempts.ts'
import { hashPassword } from './passwords.ts'
import type { Store, Work } from './store.ts'
import { userFault } from './user-faults.ts'
import { newId } from './ways.ts'

// Who may do what. A browser has a session cookie (sessions.ts) and must show the session's CSRF
// value; a program has a token whose scopes are a subset of its user's roles. Only hashes of either
// are stored. A token never does more than it was made for: it cannot set its user's password, and
// what it makes does not outlive it.

export interface Caller {
  user: string
  roles: readonly Role[]
  via: 'session' | 'token'
  /** For a session: what a changing request must send back. */
  csrf?: string
  /** For a token: when it ends. */
  expires?: number
}

/** How exactly the store knows when a token was used last. */
const usedWithin = 60 * 60 * 1000

/** Only this is stored of a cookie or token, both of which are 256 random bits. */
export const digest = (text: string): string =>
  createHash('sha256').update(text).digest('base64url')

/** Creates or replaces a user within a transaction; the password may come later. */
export async function putUser(
  work: Work,
  name: string,
  granted: readonly Role[],
  password?: Secret,
): Promise<void> {
  const hash = password === undefined ? null : await hashPassword(password)
  const row = { name, password: hash, roles: canonicalJson(granted) }
  await work
    .insertInto('users')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doUpdateSet(row))
    .execute()
}

/** Sets a password, which ends the user's sessions and locks. @throws Fault user.unknown */
export async function setPassword(
  store: Store,
  clock: Clock,
  name: string,
  password: Secret,
  actor: string,
): Promise<void> {
  const hash = await hashPassword(password)
  await store.write(async (work) => {
    const { numUpdatedRows } = await work
      .updateTable('users')
      .set({ password: hash })
      .where('name', '=', name)
      .executeTakeFirst()
    if (numUpdatedRows === 0n) throw userFault('user.unknown', `there is no user ${name}`)
    await work.deleteFrom('sessions').where('user', '=', name).execute()
    await forgetFailures(work, name)
    await record(work, clock, { actor, action: 'user.password', subject: name, outcome: 'done' })
  })
}

export interface NewToken {
  id: string
  token: string
  user: string
  label: string
  scopes: Role[]
  expires: number
}

/** A token for a program; its text is returned once and never stored. */
export async function createToken(
  store: Store,
  clock: Clock,
  caller: Caller,
  wanted: { label: string; scopes: readonly Role[]; days: number },
): Promise<NewToken> {
  const beyond = wanted.scopes.filter((scope) => !caller.roles.includes(scope))
  if (beyond.length > 0)
    throw userFault('user.forbidden', `${caller.user} does not have the role ${beyond.join(', ')}`)
  const token = `hf_${randomBytes(32).toString('base64url')}`
  const wish = clock.now() + wanted.days * 86_400_000
  const expires = Math.min(wish, caller.expires ?? wish)
  const row = {
    id: newId(),
    hash: digest(token),
    user: caller.user,
    label: wanted.label,
    scopes: canonicalJson(wanted.scopes),
    expires,
  }
  await store.write(async (work) => {
    await work.insertInto('tokens').values(row).execute()
    await record(work, clock, {
      actor: `user:${caller.user}`,
      action: 'token.create',
      subject: row.id,
      outcome: 'done',
      data: { scopes: wanted.scopes },
    })
  })
  return {
    id: row.id,
    token,
    user: caller.user,
    label: wanted.label,
    scopes: [...wanted.scopes],
    expires,
  }
}

/** Who the token is of; undefined when it is unknown or has expired. */
export async function tokenCaller(
  store: Store,
  clock: Clock,
  token: string,
): Promise<Caller | undefined> {
  const row = await store.read
    .selectFrom('tokens')
    .selectAll()
    .where('hash', '=', digest(token))
    .executeTakeFirst()
  if (row === undefined || row.expires < clock.now()) return undefined
  const user = await store.read
    .selectFrom('users')
    .select('roles')
    .where('name', '=', row.user)
    .executeTakeFirst()
  const held = user === undefined ? [] : rolesOf(user.roles)
  if (row.last_used === null || row.last_used < clock.now() - usedWithin)
    await store.write((work) =>
      work.updateTable('tokens').set({ last_used: clock.now() }).where('id', '=', row.id).execute(),
    )
  // A role taken from the user is gone from all tokens at once.
  return {
    user: row.user,
    roles: rolesOf(row.scopes).filter((scope) => held.includes(scope)),
    via: 'token',
    expires: row.expires,
  }
}

/** Ends a token: an administrator anybody's, others their own. @throws Fault user.token_unknown */
export async function revokeToken(
  store: Store,
  clock: Clock,
  caller: Caller,
  id: string,
): Promise<void> {
  await store.write(async (work) => {
    let query = work.deleteFrom('tokens').where('id', '=', id)
    if (!caller.roles.includes('admin')) query = query.where('user', '=', caller.user)
    const { numDeletedRows } = await query.executeTakeFirst()
    if (numDeletedRows === 0n)
      throw userFault('user.token_unknown', `there is no token ${id} of yours`)
    await record(work, clock, {
      actor: `user:${caller.user}`,
      action: 'token.revoke',
      subject: id,
      outcome: 'done',
    })
  })
}

export function rolesOf(text: string): Role[] {
  const list = parseJson(text, 'the roles')
  return roles.filter((role) => Array.isArray(list) && list.includes(role))
}
