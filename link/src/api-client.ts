import type { Agent } from 'node:https'
import { Fault, type FaultKind, isFault, isObject, parseJson } from '@holdfast/base'
import { type AnyRoute, errorSchema } from '@holdfast/protocol'
import type { z } from 'zod'
import { download, exchange } from './exchange.ts'
import { linkFault } from './faults.ts'
import { pinnedTls } from './tls.ts'

// The coordinator's API as functions: routes, inputs and outputs are those of the protocol. The
// connection goes to the pinned identity and to no other; names and certificate authorities do not
// count. An error of the coordinator arrives as the same fault, with its code, kind and hint.

export interface ApiPlace {
  /** `https://host:port` */
  url: string
  /** base64url SHA-256 of the coordinator's public key. */
  identity: string
  /** Shown with every request. */
  token?: string
  /** The address of this machine to connect from; default the system's choice. */
  from?: string
}

export interface ApiInput<R extends AnyRoute> {
  params?: Readonly<Record<string, string>>
  query?: Readonly<Record<string, string | number>>
  body?: z.input<R['body']>
  headers?: Readonly<Record<string, string>>
}

export interface ApiReply<R extends AnyRoute> {
  value: z.output<R['output']>
  /** Cookies to send back, `name=value`. */
  cookie: string
}

/** Milliseconds; asking a TPM takes its time. */
const patience = 60_000
/** Bytes; the nodes of a large fleet are the largest answer. */
const largestReply = 128 * 1024 * 1024
/** Bytes of an answer that says what went wrong. */
const largestError = 1024 * 1024
/** A pin that no key has. */
const nobody = 'A'.repeat(43)

export class ApiClient implements Disposable {
  readonly place: ApiPlace
  readonly #tls: Agent
  readonly #signal: AbortSignal | undefined

  constructor(place: ApiPlace, signal?: AbortSignal) {
    this.place = place
    const { identity, from } = place
    this.#tls = pinnedTls(identity, from === undefined ? {} : { from })
    this.#signal = signal
  }

  /**
   * Calls a route.
   * @throws Fault link.unreachable, link.identity_mismatch, link.reply_malformed, and every fault of the
   *   coordinator
   */
  async call<R extends AnyRoute>(
    route: R,
    input: ApiInput<R> = {},
  ): Promise<z.output<R['output']>> {
    return (await this.send(route, input)).value
  }

  /** Calls a route that sets a cookie. */
  async send<R extends AnyRoute>(route: R, input: ApiInput<R> = {}): Promise<ApiReply<R>> {
    const { target, options } = this.#request(route, input)
    const { status, body, headers } = await exchange(target, { ...options, limit: largestReply })
    const content = contentOf(body, target)
    if (status !== 200) throw faultOf(content, status, target)
    const parsed = route.output.safeParse(content)
    if (!parsed.success) throw malformed(target, 'its answer has another shape than expected')
    const cookies = (headers['set-cookie'] ?? []).map((line) => line.split(';')[0] ?? '')
    // The route's own schema has just parsed it.
    return { value: parsed.data as z.output<R['output']>, cookie: cookies.join('; ') }
  }

  /** Calls a route whose answer comes in parts; they are asked for as they are taken. Faults as `call`. */
  async *receive<R extends AnyRoute>(route: R, input: ApiInput<R> = {}): AsyncGenerator<Buffer> {
    const { target, options } = this.#request(route, input)
    const { status, body } = await download(target, options)
    if (status === 200) return yield* body
    const parts: Buffer[] = []
    let size = 0
    for await (const part of body) {
      parts.push(part)
      size += part.length
      if (size > largestError) throw malformed(target, `it answers ${status} at great length`)
    }
    throw faultOf(contentOf(Buffer.concat(parts).toString('utf8'), target), status, target)
  }

  #request<R extends AnyRoute>(route: R, input: ApiInput<R>) {
    const { url, token } = this.place
    const bearer = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const options = {
      method: methods[route.spec.method],
      tls: this.#tls,
      timeout: patience,
      headers: { ...bearer, ...input.headers },
      ...(input.body === undefined ? {} : { body: JSON.stringify(input.body) }),
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
    }
    return { target: `${url.replace(/\/+$/, '')}${pathOf(route, input)}`, options }
  }

  [Symbol.dispose](): void {
    this.#tls.destroy()
  }
}

/**
 * The identity that a server shows, without sending it anything.
 * @throws Fault link.unreachable, link.address_invalid
 */
export async function shownIdentity(url: string, signal?: AbortSignal): Promise<string> {
  const tls = pinnedTls(nobody)
  try {
    await exchange(url, { method: 'GET', tls, ...(signal === undefined ? {} : { signal }) })
  } catch (error) {
    const shown = isFault(error, 'link.identity_mismatch') ? error.details?.shown : undefined
    if (typeof shown === 'string') return shown
    throw error
  } finally {
    tls.destroy()
  }
  throw malformed(url, 'it shows an identity that cannot be')
}

const methods = { get: 'GET', post: 'POST', put: 'PUT', delete: 'DELETE' } as const

function pathOf(route: AnyRoute, { params = {}, query = {} }: ApiInput<AnyRoute>): string {
  const path = route.spec.path.replaceAll(/\{(\w+)\}/g, (_whole: string, name: string) =>
    encodeURIComponent(params[name] ?? ''),
  )
  const pairs = Object.entries(query).map(([name, value]): [string, string] => [
    name,
    String(value),
  ])
  return pairs.length === 0 ? path : `${path}?${new URLSearchParams(pairs)}`
}

function contentOf(body: string, target: string): unknown {
  try {
    return parseJson(body, 'the answer', largestReply)
  } catch (cause) {
    throw malformed(target, 'its answer is not JSON', cause)
  }
}

const kinds: readonly string[] = [
  'usage',
  'invalid',
  'refused',
  'unavailable',
  'integrity',
  'absent',
  'busy',
  'internal',
] satisfies FaultKind[]

function isKind(text: string): text is FaultKind {
  return kinds.includes(text)
}

/** The coordinator's own fault, as if it had been thrown here. */
function faultOf(content: unknown, status: number, target: string): Fault {
  const parsed = errorSchema.safeParse(content)
  if (!parsed.success) return malformed(target, `it answers ${status} without an error of ours`)
  const { code, kind, message, hint, details } = parsed.data.error
  return new Fault(code, isKind(kind) ? kind : 'internal', message, {
    ...(hint === undefined ? {} : { hint }),
    ...(isObject(details) ? { details } : {}),
  })
}

function malformed(target: string, reason: string, cause?: unknown): Fault {
  const { host } = URL.parse(target) ?? { host: target }
  return linkFault('link.reply_malformed', `${host} cannot be understood: ${reason}`, {
    ...(cause === undefined ? {} : { cause }),
    hint: 'is it a coordinator, and of a version that fits?',
  })
}
