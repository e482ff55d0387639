import { defined, parseJsonObject, Secret } from '@holdfast/base'
import { type Role, userRoutes } from '@holdfast/protocol'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { deleteCookie, getCookie, setCookie } from 'hono/cookie'
import { verifyAudit } from './audit.ts'
import { lockedNames } from './login-attempts.ts'
import { addressOf, mount, type ServerDeps, sessionCookie } from './mount.ts'
import { LoginDesk, logout } from './sessions.ts'
import { userFault } from './user-faults.ts'
import { type Caller, createToken, revokeToken, setPassword } from './users.ts'

export function mountUsers(app: OpenAPIHono, deps: ServerDeps): void {
  const { coordinator, clock } = deps
  const { store } = coordinator
  const desk = new LoginDesk({ store, clock, perMinute: () => deps.limits.logins })
  // A line of their own: whoever changes a password all the time must not keep others from signing in.
  const changes = new LoginDesk({ store, clock, perMinute: () => deps.limits.logins })
  mount(app, deps, userRoutes.list, async () => {
    const rows = await store.read
      .selectFrom('users')
      .select(['name', 'roles'])
      .orderBy('name')
      .execute()
    const locked = await lockedNames(store.read, clock.now())
    const users = rows.map((row) => ({
      name: row.name,
      roles: JSON.parse(row.roles) as Role[], // written from that type alone
      ...defined({ lockedUntil: locked.get(row.name) }),
    }))
    return { users }
  })
  mount(app, deps, userRoutes.set, async ({ params, body, caller }) => {
    const name = params.name ?? ''
    const me = signedIn(caller)
    if (me.user !== name && !me.roles.includes('admin'))
      throw userFault('user.forbidden', "setting another user's password needs the role admin")
    // Whoever finds a token for one task must not become its user.
    if (me.via === 'token' && !me.roles.includes('admin'))
      throw userFault('user.forbidden', 'a token sets no password unless it has the role admin', {
        hint: 'sign in with the password first',
      })
    using password = Secret.copy(body.password)
    await changes.inTurn(() => setPassword(store, clock, name, password, `user:${me.user}`))
    return { done: true }
  })
  mount(app, deps, userRoutes.login, async ({ body, context }) => {
    using password = Secret.copy(body.password)
    const { cookie, csrf, expires, roles } = await desk.login(
      body.user,
      password,
      addressOf(context),
    )
    setCookie(context, sessionCookie, cookie, {
      path: '/',
      secure: true,
      httpOnly: true,
      sameSite: 'Strict',
      expires: new Date(expires),
    })
    return { csrf, expires, roles }
  })
  mount(app, deps, userRoutes.logout, async ({ context }) => {
    await logout(store, getCookie(context, sessionCookie) ?? '')
    deleteCookie(context, sessionCookie, { path: '/', secure: true })
    return { done: true }
  })
  mountTokens(app, deps)
  mountAudit(app, deps)
}

function mountTokens(app: OpenAPIHono, deps: ServerDeps): void {
  const { coordinator, clock } = deps
  const { store } = coordinator
  mount(app, deps, userRoutes.tokens, async ({ caller }) => {
    const me = signedIn(caller)
    const rows = await store.read
      .selectFrom('tokens')
      .selectAll()
      .orderBy('expires')
      .orderBy('label')
      .orderBy('id')
      .execute()
    const mine = rows.filter(({ user }) => user === me.user || me.roles.includes('admin'))
    const tokens = mine.map((row) => ({
      id: row.id,
      user: row.user,
      label: row.label,
      scopes: JSON.parse(row.scopes) as Role[], // written from that type alone
      expires: row.expires,
      ...defined({ lastUsed: row.last_used ?? undefined }),
    }))
    return { tokens }
  })
  mount(
    app,
    deps,
    userRoutes.createToken,
    async ({ body, caller }) => await createToken(store, clock, signedIn(caller), body),
  )
  mount(app, deps, userRoutes.revokeToken, async ({ params, caller }) => {
    await revokeToken(store, clock, signedIn(caller), params.id ?? '')
    return { done: true }
  })
}

function mountAudit(app: OpenAPIHono, deps: ServerDeps): void {
  const { store } = deps.coordinator
  mount(app, deps, userRoutes.audit, async ({ query }) => {
    const after = Number(query.after)
    const rows = await store.read
      .selectFrom('audit')
      .selectAll()
      .where('sequence', '>', after)
      .orderBy('sequence')
      .limit(Number(query.limit))
      .execute()
    const head = await store.read
      .selectFrom('audit')
      .select('hash')
      .orderBy('sequence', 'desc')
      .limit(1)
      .executeTakeFirst()
    return {
      entries: rows.map((row) => ({ ...row, data: parseJsonObject(row.data, 'the entry') })),
      head: head?.hash ?? '',
    }
  })
  mount(app, deps, userRoutes.verifyAudit, async () => await verifyAudit(store.read))
}

function signedIn(caller: Caller | undefined): Caller {
  if (caller === undefined) throw userFault('user.not_signed_in', 'this needs a session or a token')
  return caller
}
