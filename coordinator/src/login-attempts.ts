import { sourceOf } from '@holdfast/link'
import { tooMany } from './rate-limits.ts'
import type { Work } from './store.ts'
import type { AttemptTable } from './tables.ts'
import { userFault } from './user-faults.ts'

// Guesses of passwords, counted in the store: a restart, or another instance, gives nobody fresh
// attempts. A name that does not exist locks like one that does, so that locking tells nothing.

const minute = 60_000
const day = 24 * 60 * minute
const attemptsBeforeLock = 5
const firstLock = 30_000
const longestLock = 60 * minute

const ofUser = (name: string): string => `user ${name}`
const ofSource = (address: string): string => `source ${sourceOf(address)}`

/** Milliseconds a name is locked for after so many failures: none, then doubling. */
export function lockAfter(failures: number): number {
  if (failures < attemptsBeforeLock) return 0
  return Math.min(firstLock * 2 ** (failures - attemptsBeforeLock), longestLock)
}

/**
 * Counts an attempt for its source and looks whether the name is locked.
 * @returns user.locked or user.too_many_requests, not thrown, because the attempt counts even so
 */
export async function admitAttempt(
  work: Work,
  now: number,
  attempt: { name: string; address: string; perMinute: number },
): Promise<Error | undefined> {
  await work
    .deleteFrom('attempts')
    .where(({ eb, or }) => or([eb('since', '<', now - day), eb('since', '>', now + day)]))
    .execute()
  const source = ofSource(attempt.address)
  const before = await read(work, source)
  // Also when the clock was set back; instances' clocks differ by less than a minute.
  const fresh = before === undefined || Math.abs(now - before.since) >= minute
  const since = fresh ? now : before.since
  const count = fresh ? 1 : before.count + 1
  await put(work, { name: source, count, since, until: since + minute })
  if (count > attempt.perMinute) return tooMany(Math.ceil((since + minute - now) / 1000))
  const locked = await read(work, ofUser(attempt.name))
  return locked !== undefined && isLocked(locked, now) ? lockedFor(locked.until - now) : undefined
}

/** Counts a wrong password; enough of them lock the name. */
export async function countFailure(work: Work, now: number, name: string): Promise<void> {
  const count = ((await read(work, ofUser(name)))?.count ?? 0) + 1
  await put(work, { name: ofUser(name), count, since: now, until: now + lockAfter(count) })
}

/** A right password, or a new one: the name is locked no more. */
export async function forgetFailures(work: Work, name: string): Promise<void> {
  await work.deleteFrom('attempts').where('name', '=', ofUser(name)).execute()
}

/** Until when each of the locked names is. */
export async function lockedNames(work: Pick<Work, 'selectFrom'>, now: number) {
  const rows = await work.selectFrom('attempts').selectAll().where('until', '>', now).execute()
  const locked = rows.filter((row) => row.name.startsWith('user ') && isLocked(row, now))
  return new Map(locked.map(({ name, until }) => [name.replace(/^user /, ''), until]))
}

/** A lock of more than the longest was counted by a clock that has been set back since. */
function isLocked({ until }: AttemptTable, now: number): boolean {
  return until > now && until - now <= longestLock + minute
}

async function read(work: Work, name: string): Promise<AttemptTable | undefined> {
  return await work.selectFrom('attempts').selectAll().where('name', '=', name).executeTakeFirst()
}

async function put(work: Work, row: AttemptTable): Promise<void> {
  await work
    .insertInto('attempts')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doUpdateSet(row))
    .execute()
}

function lockedFor(milliseconds: number): Error {
  const seconds = Math.ceil(milliseconds / 1000)
  return userFault('user.locked', `too many wrong passwords: locked for ${seconds} s`, {
    details: { retryAfter: seconds },
  })
}
