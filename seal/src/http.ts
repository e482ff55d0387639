import { request as httpRequest, type IncomingMessage } from 'node:http'
import { messageOf } from '@holdfast/base'
import { sealFault } from './faults.ts'

// The one way this part reaches the network: a plain request with a bounded reply and no
// redirects. `node:http` and not `fetch`, because loading fetch costs more than the whole exchange.

export interface HttpReply {
  status: number
  body: string
  /** Seconds the server asked to wait, from Retry-After, if it was a number. */
  retryAfter?: number
}

/** Sends one request. @throws Fault seal.server_unreachable, seal.server_reply_invalid */
export type Fetch = (
  url: string,
  options: { method: 'GET' | 'POST'; body?: string; contentType?: string; signal: AbortSignal },
) => Promise<HttpReply>

export interface FetchLimits {
  /** Milliseconds until the connection must stand. Default 3 000. */
  connect?: number
  /** Milliseconds until the reply must be complete. Default 10 000. */
  total?: number
  /** The most a reply body may measure, in bytes. Default 65 536. */
  body?: number
}

/** The real thing; http and https only. */
export function createFetch(limits: FetchLimits = {}): Fetch {
  return async (url, options) => {
    const target = checkedUrl(url)
    const request =
      target.protocol === 'https:' ? (await import('node:https')).request : httpRequest
    return await exchange(request, target, options, limits)
  }
}

/** @throws Fault seal.policy_invalid unless the address is http or https */
export function checkedUrl(url: string): URL {
  const target = URL.parse(url)
  if (target === null || !['http:', 'https:'].includes(target.protocol) || target.username !== '') {
    throw sealFault('seal.policy_invalid', `"${url.slice(0, 200)}" is not an http or https address`)
  }
  return target
}

function exchange(
  request: typeof httpRequest,
  target: URL,
  options: Parameters<Fetch>[1],
  limits: FetchLimits,
): Promise<HttpReply> {
  const { connect = 3_000, total = 10_000, body: most = 65_536 } = limits
  return new Promise((resolve, reject) => {
    const unreachable = (reason: string, cause?: unknown) => {
      const text = `key server ${target.origin} cannot be reached: ${reason}`
      const hint = `check that it runs and that this machine may reach it: curl ${target.origin}/adv`
      return sealFault('seal.server_unreachable', text, { hint, cause })
    }
    const headers: Record<string, string | number> = {}
    if (options.body !== undefined) {
      headers['content-type'] = options.contentType ?? 'application/json'
      headers['content-length'] = Buffer.byteLength(options.body)
    }
    const outgoing = request(target, {
      method: options.method,
      headers,
      agent: false,
      signal: options.signal,
    })
    const stop = (reason: string) => outgoing.destroy(new Error(reason))
    const connecting = setTimeout(() => stop(`no connection within ${connect} ms`), connect)
    const deadline = setTimeout(() => stop(`no answer within ${total} ms`), total)
    outgoing.on('socket', (socket) => socket.once('connect', () => clearTimeout(connecting)))
    outgoing.on('close', () => {
      clearTimeout(connecting)
      clearTimeout(deadline)
    })
    outgoing.on('error', (error) => {
      if (options.signal.aborted) reject(options.signal.reason)
      else reject(unreachable(reasonOf(error), error))
    })
    outgoing.on('response', (incoming) => {
      collect(incoming, most, target).then(resolve, reject)
    })
    outgoing.end(options.body)
  })
}

/** An address with several answers fails with an AggregateError whose own message is empty. */
function reasonOf(error: Error): string {
  const inner = error instanceof AggregateError ? error.errors.map(messageOf).join(', ') : ''
  return inner === '' ? error.message || (error as NodeJS.ErrnoException).code || 'failed' : inner
}

async function collect(incoming: IncomingMessage, most: number, target: URL): Promise<HttpReply> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of incoming) {
      size += (chunk as Buffer).length // no encoding is set, so chunks are buffers
      if (size > most) {
        throw sealFault(
          'seal.server_reply_invalid',
          `${target.origin} sent more than ${most} bytes`,
        )
      }
      chunks.push(chunk as Buffer)
    }
  } catch (error) {
    incoming.destroy()
    if (error instanceof Error && 'kind' in error) throw error
    throw sealFault(
      'seal.server_unreachable',
      `key server ${target.origin} broke off: ${messageOf(error)}`,
    )
  }
  const retryAfter = Number(incoming.headers['retry-after'] ?? Number.NaN)
  return {
    status: incoming.statusCode ?? 0,
    body: Buffer.concat(chunks).toString('utf8'),
    ...(Number.isFinite(retryAfter) ? { retryAfter } : {}),
  }
}
