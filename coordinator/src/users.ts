import { createHash, randomBytes } from 'node:crypto'
import { type Clock, canonicalJson, parseJson, type Secret } from '@holdfast/base'
import { type Role, roles } from '@holdfast/protocol'
import { record, recordAlone } from './audit.ts'
import { checkPassword, hashPassword, noPassword } from './passwords.ts'
import type { Store, Work } from './store.ts'
import { userFault } from './user-faults.ts'
import { newId } from './ways.ts'

// Who may do what. A browser has a session cookie and must show the session's CSRF value; a program
// has a token whose scopes are a subset of its user's roles. Only hashes of either are stored.
// Lockout is durable: restarting the coordinator does not give anybody fresh attempts.

export interface Caller {
  user: string
  roles: readonly Role[]
  via: 'session' | 'token'
  /** For a session: what a changing request must send back. */
  csrf?: string
}

const sessionLifetime = 8 * 60 * 60 * 1000
const attemptsBeforeLock = 5
const firstLock = 30_000
const longestLock = 60 * 60 * 1000

const digest = (text: string): string => createHash('sha256').update(text).digest('base64url')

/** Creates or replaces a user within a transaction; the password may come later. */
export async function putUser(
  work: Work,
  name: string,
  granted: readonly Role[],
  password?: Secret,
): Promise<void> {
  const hash = password === undefined ? null : await hashPassword(password)
  const row = { name, password: hash, roles: canonicalJson(granted), failures: 0, locked_until: 0 }
  await work
    .insertInto('users')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doUpdateSet(row))
    .execute()
}

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
      .set({ password: hash, failures: 0, locked_until: 0 })
      .where('name', '=', name)
      .executeTakeFirst()
    if (numUpdatedRows === 0n) throw userFault('user.unknown', `there is no user ${name}`)
    await work.deleteFrom('sessions').where('user', '=', name).execute()
    await record(work, clock, { actor, action: 'user.password', subject: name, outcome: 'done' })
  })
}

/**
 * Begins a session. Wrong password, unknown user and locked user look alike in time and text, except
 * that a locked one is told until when.
 */
export async function login(
  store: Store,
  clock: Clock,
  name: string,
  password: Secret,
): Promise<{ cookie: string; csrf: string; expires: number; roles: Role[] }> {
  const user = await store.read
    .selectFrom('users')
    .selectAll()
    .where('name', '=', name)
    .executeTakeFirst()
  const now = clock.now()
  if (user !== undefined && user.locked_until > now) throw locked(user.locked_until - now)
  const right = await checkPassword(password, user?.password ?? noPassword)
  if (user === undefined || !right) {
    if (user !== undefined) await countFailure(store, clock, name)
    await recordAlone(store, clock, {
      actor: `user:${name}`,
      action: 'session.begin',
      subject: name,
      outcome: 'refused',
    })
    throw userFault('user.login_refused', 'user or password is wrong')
  }
  const cookie = randomBytes(32).toString('base64url')
  const csrf = randomBytes(16).toString('base64url')
  const expires = now + sessionLifetime
  await store.write(async (work) => {
    await work.deleteFrom('sessions').where('expires', '<', now).execute()
    await work
      .insertInto('sessions')
      .values({ hash: digest(cookie), user: name, csrf, expires })
      .execute()
    await work
      .updateTable('users')
      .set({ failures: 0, locked_until: 0 })
      .where('name', '=', name)
      .execute()
    await record(work, clock, {
      actor: `user:${name}`,
      action: 'session.begin',
      subject: name,
      outcome: 'done',
    })
  })
  return { cookie, csrf, expires, roles: rolesOf(user.roles) }
}

/** Milliseconds a user is locked for after so many failures: none, then doubling. */
export function lockAfter(failures: number): number {
  if (failures < attemptsBeforeLock) return 0
  return Math.min(firstLock * 2 ** (failures - attemptsBeforeLock), longestLock)
}

async function countFailure(store: Store, clock: Clock, name: string): Promise<void> {
  await store.write(async (work) => {
    const { failures } = await work
      .selectFrom('users')
      .select('failures')
      .where('name', '=', name)
      .executeTakeFirstOrThrow()
    const count = failures + 1
    await work
      .updateTable('users')
      .set({ failures: count, locked_until: clock.now() + lockAfter(count) })
      .where('name', '=', name)
      .execute()
  })
}

export async function logout(store: Store, cookie: string): Promise<void> {
  await store.write((work) =>
    work.deleteFrom('sessions').where('hash', '=', digest(cookie)).execute(),
  )
}

export async function sessionCaller(
  store: Store,
  clock: Clock,
  cookie: string,
): Promise<Caller | undefined> {
  const session = await store.read
    .selectFrom('sessions')
    .selectAll()
    .where('hash', '=', digest(cookie))
    .executeTakeFirst()
  if (session === undefined || session.expires < clock.now()) return undefined
  const user = await store.read
    .selectFrom('users')
    .select('roles')
    .where('name', '=', session.user)
    .executeTakeFirst()
  if (user === undefined) return undefined
  return { user: session.user, roles: rolesOf(user.roles), via: 'session', csrf: session.csrf }
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
  const expires = clock.now() + wanted.days * 86_400_000
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
  // A role taken from the user is gone from all tokens at once.
  return {
    user: row.user,
    roles: rolesOf(row.scopes).filter((scope) => held.includes(scope)),
    via: 'token',
  }
}

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

function rolesOf(text: string): Role[] {
  const list = parseJson(text, 'the roles')
  return roles.filter((role) => Array.isArray(list) && list.includes(role))
}

function locked(milliseconds: number): Error {
  const seconds = Math.ceil(milliseconds / 1000)
  return userFault('user.locked', `too many wrong passwords: locked for ${seconds} s`, {
    details: { retryAfter: seconds },
  })
}
