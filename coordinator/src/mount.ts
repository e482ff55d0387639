import { type Clock, type Fault, type FaultKind, isFault } from '@holdfast/base'
import type { Access, AnyRoute, Role } from '@holdfast/protocol'
import { OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { getCookie } from 'hono/cookie'
import { HTTPException } from 'hono/http-exception'
import type { z } from 'zod'
import { apiFault } from './api-faults.ts'
import { recordAlone } from './audit.ts'
import { equalTexts } from './compare.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import { reasonTexts } from './life.ts'
import type { RateLimits } from './rate-limits.ts'
import { sessionCaller } from './sessions.ts'
import { isUnreachable } from './store.ts'
import { userFault } from './user-faults.ts'
import { type Caller, tokenCaller } from './users.ts'

// How every route is answered: limits, state, who calls, and only then is the body read and parsed,
// so that strangers cannot make the coordinator work for them. A handler gets what the route's own
// schemas have parsed and returns what they promise.

export interface ServerDeps {
  coordinator: Coordinator
  clock: Clock
  limits: RateLimits
  /** This instance's own name, as the status and the audit log give it. */
  instance?: string
  /** Told of failures that no fault describes. */
  report?: (error: unknown) => void
  /** What the people who look at the status must know, besides what the state itself says. */
  alarms?: () => Promise<string[]>
  /** Origins, besides the request's own, from which browsers may change something. */
  origins: readonly string[]
}

type Parsed<T> = T extends z.ZodType ? z.output<T> : undefined

export interface Call<R extends AnyRoute> {
  params: Record<string, string>
  query: Record<string, unknown>
  body: Parsed<R['body']>
  caller: Caller | undefined
  context: Context
}

export type Handler<R extends AnyRoute> = (call: Call<R>) => Promise<z.input<R['output']>>

export const sessionCookie = '__Host-holdfast'

const statusOf: Readonly<Record<FaultKind, 400 | 403 | 404 | 409 | 429 | 500 | 503>> = {
  usage: 400,
  invalid: 400,
  refused: 403,
  unavailable: 503,
  integrity: 409,
  absent: 404,
  busy: 429,
  internal: 500,
}

/** An application whose own errors are faults with codes, too. */
export function createApp(report: (error: unknown) => void = () => undefined): OpenAPIHono {
  const app = new OpenAPIHono({
    defaultHook: (result, context) => {
      if (result.success) return undefined
      const issues = result.error.issues.map(({ path, message }) => ({
        path: path.join('.'),
        message,
      }))
      const fault = apiFault(
        'api.request_invalid',
        'the request does not have the shape this route takes',
        { details: { issues } },
      )
      return context.json({ error: fault.toJSON() }, 400)
    },
  })
  app.notFound((context) =>
    context.json({ error: apiFault('api.no_such_route', 'there is no such route').toJSON() }, 404),
  )
  app.onError((error, context) => {
    // The framework's own refusals: a body that is not the JSON it says it is.
    if (error instanceof HTTPException && error.status < 500) return answerFault(context, notJson())
    if (!isFault(error)) report(error)
    return answerFault(context, error)
  })
  return app
}

function answerFault(context: Context, error: unknown): Response {
  const fault = isFault(error) ? error : faultOf(error)
  const { retryAfter } = fault.details ?? {}
  if (typeof retryAfter === 'number') context.header('Retry-After', String(retryAfter))
  const status =
    fault.code === 'user.not_signed_in' || fault.code === 'user.login_refused'
      ? 401
      : statusOf[fault.kind]
  return context.json({ error: fault.toJSON() }, status)
}

function faultOf(error: unknown): Fault {
  if (isUnreachable(error)) {
    const { text, hint } = reasonTexts.storage_unreachable
    return coordinatorFault('coordinator.storage_unreachable', text, { hint })
  }
  return apiFault('api.internal', 'the coordinator failed on this request')
}

/** Adds a route with its handler. */
export function mount<R extends AnyRoute>(
  app: OpenAPIHono,
  deps: ServerDeps,
  route: R,
  handler: Handler<R>,
): void {
  // A handler may have set another status; the type knows only the usual one.
  respond(app, deps, route, async (call) => call.context.json((await handler(call)) as never))
}

/** Adds a route whose answer comes in parts, as they are made. */
export function mountStream<R extends AnyRoute>(
  app: OpenAPIHono,
  deps: ServerDeps,
  route: R,
  handler: (call: Call<R>) => Promise<ReadableStream<Uint8Array>>,
): void {
  respond(app, deps, route, async (call) => {
    call.context.header('Content-Type', route.media)
    return call.context.body(await handler(call))
  })
}

function respond<R extends AnyRoute>(
  app: OpenAPIHono,
  deps: ServerDeps,
  route: R,
  answer: (call: Call<R>) => Promise<Response>,
): void {
  guard(app, deps, route)
  app.openapi(route.spec as AnyRoute['spec'], async (context) => {
    // Whatever the framework may match differently one day: nothing is answered unguarded.
    if (context.get(guardedKey as never) !== route.id) throw new Error(`${route.id} is unguarded`)
    const body = route.body === undefined ? undefined : context.req.valid('json' as never)
    const response = await answer({
      params: context.req.param(),
      query: (route.query === undefined ? {} : context.req.valid('query' as never)) as Record<
        string,
        unknown
      >,
      body: body as Parsed<R['body']>, // the validator of this very route has parsed it
      caller: context.get(callerKey as never),
      context,
    })
    return response as never // the framework's type has no answer but JSON
  })
}

const callerKey = 'holdfast-caller'
const limitedKey = 'holdfast-limited'
const guardedKey = 'holdfast-guarded'

/** What a stranger may send; a holder's answer is far smaller. */
const strangersBody = 128 * 1024
const largestBody = 4 * 1024 * 1024

/** Everything that is decided before a byte of the body is parsed. */
function guard(app: OpenAPIHono, deps: ServerDeps, route: AnyRoute): void {
  const { limits, coordinator } = deps
  const { spec, rules } = route
  const open = rules.access === 'anyone' || rules.access === 'proof'
  const bodies = { strangers: bodyLimitOf(strangersBody), known: bodyLimitOf(largestBody) }
  app.use(spec.getRoutingPath(), async (context, next) => {
    // HEAD is answered by what is mounted for GET.
    const method = context.req.method.toLowerCase().replace('head', 'get')
    if (method !== spec.method) return await next()
    // A path may match two routes' patterns.
    if (open && context.get(limitedKey as never) === undefined) limits.takeOpen(addressOf(context))
    context.set(limitedKey as never, true as never)
    coordinator.require(...(rules.states ?? ['running']))
    const caller = await identify(context, deps)
    try {
      authorise(rules.access, caller)
      if (spec.method !== 'get' && caller?.via !== 'token') checkBrowser(context, caller, deps)
    } catch (error) {
      await refused(deps, route, caller, error)
      throw error
    }
    context.set(callerKey as never, caller as never)
    context.set(guardedKey as never, route.id as never)
    // A form of another page is sent without asking first; JSON is not.
    if (route.body !== undefined && !isJson(context)) throw notJson()
    return await (caller === undefined ? bodies.strangers : bodies.known)(context, next)
  })
}

function isJson(context: Context): boolean {
  return /^application\/json\s*(;|$)/i.test(context.req.header('content-type') ?? '')
}

function notJson(): Error {
  return apiFault('api.request_invalid', 'the request carries no JSON', {
    hint: 'send a body of JSON, with the content type application/json',
  })
}

function bodyLimitOf(maxSize: number) {
  return bodyLimit({
    maxSize,
    onError: (context) => {
      const text = `a request is larger than ${maxSize} bytes`
      return context.json({ error: apiFault('api.body_too_large', text).toJSON() }, 413)
    },
  })
}

async function identify(
  context: Context,
  { coordinator, clock }: ServerDeps,
): Promise<Caller | undefined> {
  const [scheme, token] = (context.req.header('authorization') ?? '').split(' ')
  if (scheme === 'Bearer' && token !== undefined)
    return await tokenCaller(coordinator.store, clock, token)
  const cookie = getCookie(context, sessionCookie)
  return cookie === undefined ? undefined : await sessionCaller(coordinator.store, clock, cookie)
}

/** @throws Fault user.not_signed_in, user.forbidden */
export function authorise(access: Access, caller: Caller | undefined): void {
  if (access === 'anyone' || access === 'proof' || access === 'agent') return
  if (caller === undefined)
    throw userFault('user.not_signed_in', 'this needs a session or a token', {
      hint: 'holdfast coordinator login',
    })
  if (access === 'user') return
  const wanted: readonly Role[] = access
  if (wanted.some((role) => caller.roles.includes(role))) return
  throw userFault(
    'user.forbidden',
    `this needs the role ${wanted.join(' or ')}, and ${caller.user} has ${caller.roles.join(', ') || 'none'}`,
  )
}

/**
 * A browser's changing request must come from our own page, also one that signs in, and show the
 * CSRF value of its session. What is no browser sends no origin.
 */
function checkBrowser(
  context: Context,
  caller: Caller | undefined,
  { origins }: Pick<ServerDeps, 'origins'>,
): void {
  const origin = context.req.header('origin')
  const own = new URL(context.req.url).host
  if (origin !== undefined && URL.parse(origin)?.host !== own && !origins.includes(origin)) {
    throw userFault('user.origin_refused', 'requests from another origin may not change anything', {
      details: { origin: origin.slice(0, 200) },
    })
  }
  if (caller === undefined) return
  if (!equalTexts(context.req.header('x-csrf-token') ?? '', caller.csrf ?? ''))
    throw userFault('user.csrf_missing', 'the request lacks the CSRF value of its session')
}

async function refused(
  { coordinator, clock }: ServerDeps,
  route: AnyRoute,
  caller: Caller | undefined,
  error: unknown,
): Promise<void> {
  // Only people who are known are written down; strangers are counted by the rate limits.
  if (caller === undefined || !isFault(error)) return
  const event = {
    actor: `user:${caller.user}`,
    action: `api.${route.id}`,
    subject: route.spec.path,
    outcome: 'refused' as const,
    data: { code: error.code },
  }
  await recordAlone(coordinator.store, clock, event)
}

/** The peer's address, without a port. */
export function addressOf(context: Context): string {
  const { incoming } = context.env as { incoming?: { socket?: { remoteAddress?: string } } } // set by the Node server
  return incoming?.socket?.remoteAddress ?? 'local'
}
