import { randomBytes } from 'node:crypto'
import type { Clock, Secret } from '@holdfast/base'
import type { Role } from '@holdfast/protocol'
import { record } from './audit.ts'
import { type Attempt, admitAttempt, countFailure, countSuccess } from './login-attempts.ts'
import { checkPassword, noPassword } from './passwords.ts'
import { tooMany } from './rate-limits.ts'
import type { Store, Work } from './store.ts'
import { userFault } from './user-faults.ts'
import { type Caller, digest, rolesOf } from './users.ts'

const sessionLifetime = 8 * 60 * 60 * 1000
/** Logins that may wait while one password is checked, which takes 64 MiB and a tenth of a second. */
const mostWaiting = 32
const waitSeconds = 5

export interface Session {
  cookie: string
  csrf: string
  expires: number
  roles: Role[]
}

export interface LoginDeskOptions {
  store: Store
  clock: Clock
  /** Logins in a minute from one source. */
  perMinute: () => number
}

/**
 * Where sessions begin. One password is checked at a time: guesses that arrive together are counted
 * one after the other, and no number of them takes all memory.
 */
export class LoginDesk {
  readonly #options: LoginDeskOptions
  #waiting = 0
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: LoginDeskOptions) {
    this.#options = options
  }

  /**
   * Begins a session. Wrong password and unknown user look alike, in time, text and locking.
   * @throws Fault user.login_refused, user.locked, user.too_many_requests
   */
  async login(name: string, password: Secret, address: string): Promise<Session> {
    return await this.inTurn(() => this.#login(name, password, address))
  }

  /** Whatever else takes a hash of a password waits in the same line. @throws Fault user.too_many_requests */
  async inTurn<T>(task: () => Promise<T>): Promise<T> {
    if (this.#waiting >= mostWaiting) throw tooMany(waitSeconds)
    this.#waiting += 1
    const next = this.#last.then(task)
    this.#last = next.catch(() => undefined)
    try {
      return await next
    } finally {
      this.#waiting -= 1
    }
  }

  async #login(name: string, password: Secret, address: string): Promise<Session> {
    const { store, clock, perMinute } = this.#options
    const attempt = { name, address, perMinute: perMinute() }
    const refused = await store.write((work) => admitAttempt(work, clock.now(), attempt))
    if (refused !== undefined) throw refused
    const user = await store.read
      .selectFrom('users')
      .selectAll()
      .where('name', '=', name)
      .executeTakeFirst()
    const right = await checkPassword(password, user?.password ?? noPassword)
    if (user !== undefined && right) return await this.#begin(attempt, rolesOf(user.roles))
    const event = { actor: `user:${name}`, action: 'session.begin', subject: name } as const
    await store.write(async (work) => {
      await countFailure(work, clock.now(), attempt)
      await record(work, clock, { ...event, outcome: 'refused' })
    })
    throw userFault('user.login_refused', 'user or password is wrong')
  }

  async #begin(attempt: Attempt, roles: Role[]): Promise<Session> {
    const { name } = attempt
    const { store, clock } = this.#options
    const now = clock.now()
    const cookie = randomBytes(32).toString('base64url')
    const csrf = randomBytes(16).toString('base64url')
    const expires = now + sessionLifetime
    await store.write(async (work) => {
      await work.deleteFrom('sessions').where('expires', '<', now).execute()
      const row = { hash: digest(cookie), user: name, csrf, expires }
      await work.insertInto('sessions').values(row).execute()
      await countSuccess(work, now, attempt)
      await record(work, clock, begun(name))
    })
    return { cookie, csrf, expires, roles }
  }
}

function begun(name: string) {
  const event = { actor: `user:${name}`, action: 'session.begin', subject: name }
  return { ...event, outcome: 'done' as const }
}

/** Ends the session of this cookie, if there is one. */
export async function logout(store: Store, cookie: string): Promise<void> {
  const remove = (work: Work) =>
    work.deleteFrom('sessions').where('hash', '=', digest(cookie)).execute()
  await store.write(remove)
}

/** Who the cookie is of, with the roles of now; undefined when it is unknown or has expired. */
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
