import { connect as connectPlain, type Socket } from 'node:net'
import { afterRunning, isFault, messageOf } from '@holdfast/base'
import { sealFault } from './faults.ts'
import { type HttpReply, ReplyReader } from './http-reply.ts'

// The one way this part reaches the network: one request on one connection, a bounded reply, no
// redirects. On a socket and not on `node:http` or `fetch`, because loading either costs a short-lived
// `holdfast open` more than the whole exchange does.

export type { HttpReply } from './http-reply.ts'

export interface FetchRequest {
  method: 'GET' | 'POST'
  body?: string
  contentType?: string
  signal: AbortSignal
}

/** Sends one request. @throws Fault seal.server_unreachable, seal.server_reply_invalid */
export type Fetch = (url: string, request: FetchRequest) => Promise<HttpReply>

export interface FetchLimits {
  /** Milliseconds until the connection must stand, as `afterRunning` counts them. Default 3 000. */
  connect?: number
  /** Milliseconds until the reply must be complete, likewise. Default 10 000. */
  total?: number
  /** The most a reply body may measure, in bytes. Default 65 536. */
  body?: number
}

/** The real thing; http and https only. */
export function createFetch(limits: FetchLimits = {}): Fetch {
  return async (url, request) => {
    const target = checkedUrl(url)
    request.signal.throwIfAborted()
    const socket = await openSocket(target)
    return await exchange(socket, target, request, limits)
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

async function openSocket(target: URL): Promise<Socket> {
  const host = target.hostname.replace(/^\[|\]$/g, '')
  if (target.protocol === 'http:') return connectPlain({ host, port: Number(target.port || 80) })
  const { connect } = await import('node:tls')
  const { isIP } = await import('node:net')
  const servername = isIP(host) === 0 ? { servername: host } : {}
  return connect({ host, port: Number(target.port || 443), ...servername })
}

/** The request's bytes: one write, so that no small packet waits for an acknowledgement. */
function requestText(target: URL, { method, body, contentType }: FetchRequest): string {
  const lines = [
    `${method} ${target.pathname}${target.search} HTTP/1.1`,
    `Host: ${target.host}`,
    'Connection: close',
  ]
  if (body !== undefined) {
    lines.push(`Content-Type: ${contentType ?? 'application/json'}`)
    lines.push(`Content-Length: ${Buffer.byteLength(body)}`)
  }
  return `${lines.join('\r\n')}\r\n\r\n${body ?? ''}`
}

function exchange(
  socket: Socket,
  target: URL,
  request: FetchRequest,
  limits: FetchLimits,
): Promise<HttpReply> {
  const { connect = 3_000, total = 10_000, body: most = 65_536 } = limits
  const reader = new ReplyReader(target.origin, most)
  return new Promise((resolve, reject) => {
    const stop = (reason: string) => socket.destroy(new Error(reason))
    const connecting = afterRunning(connect, () => stop(`no connection within ${connect} ms`))
    const deadline = afterRunning(total, () => stop(`no answer within ${total} ms`))
    const aborted = () => socket.destroy(new Error('aborted'))
    request.signal.addEventListener('abort', aborted, { once: true })
    const finish = (settle: () => void) => {
      connecting[Symbol.dispose]()
      deadline[Symbol.dispose]()
      request.signal.removeEventListener('abort', aborted)
      socket.destroy()
      settle()
    }
    const fail = (error: unknown) => {
      const reason = request.signal.aborted ? request.signal.reason : asFault(target, error)
      finish(() => reject(reason))
    }
    const take = (read: () => HttpReply | undefined) => {
      try {
        const reply = read()
        if (reply !== undefined) finish(() => resolve(reply))
        return reply !== undefined
      } catch (error) {
        fail(error)
        return true
      }
    }
    const connected = target.protocol === 'https:' ? 'secureConnect' : 'connect'
    socket.once(connected, () => connecting[Symbol.dispose]())
    socket.on('error', fail)
    socket.on('data', (chunk) => void take(() => reader.add(chunk)))
    socket.on('end', () => {
      if (!take(() => reader.end()))
        fail(new Error('the connection was closed before the reply was whole'))
    })
    socket.write(requestText(target, request))
    if (request.signal.aborted) aborted() // before there was anything to stop
  })
}

function asFault(target: URL, error: unknown): Error {
  if (isFault(error)) return error
  const text = `key server ${target.origin} cannot be reached: ${reasonOf(error)}`
  const hint = `check that it runs and that this machine may reach it: curl ${target.origin}/adv`
  return sealFault('seal.server_unreachable', text, { hint, cause: error })
}

/** An address with several answers fails with an AggregateError whose own message is empty. */
function reasonOf(error: unknown): string {
  const inner = error instanceof AggregateError ? error.errors.map(messageOf).join(', ') : ''
  if (inner !== '') return inner
  return messageOf(error) || (error as NodeJS.ErrnoException).code || 'failed'
}
