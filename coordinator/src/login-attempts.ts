import { sourceOf } from '@holdfast/link'
import { tooMany } from './rate-limits.ts'
import type { Work } from './store.ts'
import type { AttemptTable } from './tables.ts'
import { userFault } from './user-faults.ts'

// Guesses of passwords, counted in the store: a restart, or another instance, gives nobody fresh
// attempts. A name that does not exist locks like one that does, so that locking tells nothing.
//
// A stranger must not be able to lock those out who are needed. So there are as many locks of a name as
// there are known sources, from which any user has signed in of late, and one for all other sources
// together. It is any user and not the one who signs in now: else a lock that holds here and not there
// would tell strangers behind the same address whose it is. Rows of the table, by name:
//   source SOURCE       attempts of the current minute
//   known SOURCE NAME   when NAME last signed in from there
//   at SOURCE NAME      wrong passwords of NAME from a known source
//   user NAME           those from all other sources
//
// Strangers may try any number of names, and to count those that nobody has in another way would tell
// which they are. So only so many names are counted at once, and a new one takes the place of that which
// was tried longest ago, of those that are not locked if there is one: whoever wants a name's count to be
// forgotten has to have that many other passwords checked first, which takes a tenth of a second each.

const minute = 60_000
const day = 24 * 60 * minute
const attemptsBeforeLock = 5
const firstLock = 30_000
const longestLock = 60 * minute
const knownFor = 90 * day
/** Each known source may guess apart from the others, so one user can make only so many. */
const mostKnownEach = 16
/** Names, of strangers and from known sources, whose wrong passwords are counted at once. */
export const mostCounted = 10_000

/** Who tries to sign in, and from which address. */
export interface Attempt {
  name: string
  address: string
}

const ofSource = (address: string): string => `source ${sourceOf(address)}`
const knownFrom = (address: string): string => `known ${sourceOf(address)} `

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
  attempt: Attempt & { perMinute: number },
): Promise<Error | undefined> {
  await forgetOld(work, now)
  const source = ofSource(attempt.address)
  const before = await read(work, source)
  // Also when the clock was set back; instances' clocks differ by less than a minute.
  const fresh = before === undefined || Math.abs(now - before.since) >= minute
  const since = fresh ? now : before.since
  const count = fresh ? 1 : before.count + 1
  await put(work, { name: source, count, since, until: since + minute })
  if (count > attempt.perMinute) return tooMany(Math.ceil((since + minute - now) / 1000))
  const locked = await read(work, await lockOf(work, attempt))
  return locked !== undefined && isLocked(locked, now) ? lockedFor(locked.until - now) : undefined
}

/** Counts a wrong password; enough of them lock the name for this source, or for all that are not known. */
export async function countFailure(work: Work, now: number, attempt: Attempt): Promise<void> {
  const name = await lockOf(work, attempt)
  const count = ((await read(work, name))?.count ?? 0) + 1
  await put(work, { name, count, since: now, until: now + lockAfter(count) })
  if (count === 1) await makeRoom(work, now, name)
}

/**
 * A right password: what this source was wrong about is forgotten, and it is known from now on. The lock
 * for strangers stays if it was not this one's, so that who guesses gets no fresh attempts by it.
 */
export async function countSuccess(work: Work, now: number, attempt: Attempt): Promise<void> {
  await remove(work, [await lockOf(work, attempt)])
  const name = `${knownFrom(attempt.address)}${attempt.name}`
  await put(work, { name, count: 0, since: now, until: now })
  const own = (await all(work, 'known')).filter((row) => nameIn(row) === attempt.name)
  const newest = own.toSorted((one, other) => other.since - one.since)
  await remove(
    work,
    newest.slice(mostKnownEach).map((row) => row.name),
  )
}

/** A new password: the name is locked no more, anywhere. */
export async function forgetFailures(work: Work, name: string): Promise<void> {
  const here = (await all(work, 'at')).filter((row) => nameIn(row) === name)
  await remove(work, [`user ${name}`, ...here.map((row) => row.name)])
}

/** Until when each of the locked names is, wherever that is longest. */
export async function lockedNames(work: Pick<Work, 'selectFrom'>, now: number) {
  const rows = [...(await all(work, 'user')), ...(await all(work, 'at'))]
  const names = new Map<string, number>()
  for (const row of rows)
    if (isLocked(row, now)) names.set(nameIn(row), Math.max(row.until, names.get(nameIn(row)) ?? 0))
  return names
}

/** The row that counts these failures. Whether the name exists makes no difference. */
async function lockOf(work: Work, { name, address }: Attempt): Promise<string> {
  const known = await work
    .selectFrom('attempts')
    .select('name')
    .where('name', 'like', `${knownFrom(address)}%`) // a source has none of LIKE's own letters
    .limit(1)
    .executeTakeFirst()
  return known === undefined ? `user ${name}` : `at ${sourceOf(address)} ${name}`
}

async function forgetOld(work: Work, now: number): Promise<void> {
  await work
    .deleteFrom('attempts')
    .where(({ eb, or, and }) =>
      or([
        eb('since', '>', now + day),
        eb('since', '<', now - knownFor),
        and([eb('since', '<', now - day), eb('name', 'not like', 'known %')]),
        // Of no use after its minute, and anybody with an IPv6 network has as many as they like.
        and([
          eb('name', 'like', 'source %'),
          or([eb('until', '<=', now), eb('since', '>', now + minute)]),
        ]),
      ]),
    )
    .execute()
}

/** One statement takes so many names and more; what an older store has beyond them goes bit by bit. */
const removedAtOnce = 1_000

/** Forgets the counts of other names when there are too many. */
async function makeRoom(work: Work, now: number, fresh: string): Promise<void> {
  const counted = work
    .selectFrom('attempts')
    .where(({ eb, or }) => or([eb('name', 'like', 'user %'), eb('name', 'like', 'at %')]))
  const { rows } = await counted
    .select(({ fn }) => fn.countAll().as('rows'))
    .executeTakeFirstOrThrow()
  const excess = Number(rows) - mostCounted
  if (excess <= 0) return
  const oldest = await counted
    .select('name')
    .where('name', '!=', fresh)
    .orderBy(({ eb }) => eb.case().when('until', '>', now).then(1).else(0).end())
    .orderBy('since')
    .limit(Math.min(excess, removedAtOnce))
    .execute()
  await remove(
    work,
    oldest.map(({ name }) => name),
  )
}

async function all(work: Pick<Work, 'selectFrom'>, kind: 'known' | 'at' | 'user') {
  return await work.selectFrom('attempts').selectAll().where('name', 'like', `${kind} %`).execute()
}

/** The user's name in a row's, which may have spaces; a source has none. */
function nameIn({ name }: AttemptTable): string {
  return name.replace(/^(user|(known|at) [^ ]*) /, '')
}

async function remove(work: Work, names: readonly string[]): Promise<void> {
  if (names.length > 0) await work.deleteFrom('attempts').where('name', 'in', names).execute()
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
