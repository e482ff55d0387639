import {
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as plainRequest,
} from 'node:http'
import { type Agent, request as secureRequest } from 'node:https'
import { isFault, messageOf, runningTimeout } from '@holdfast/base'
import { linkFault } from './faults.ts'
import { PinnedAgent } from './tls.ts'

// One request with a bounded reply, a deadline for all of it, and no redirects.

export interface ExchangeOptions {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  body?: string
  contentType?: string
  headers?: Readonly<Record<string, string>>
  /** From `pinnedTls`. Without it only `http:` is spoken. */
  tls?: Agent
  /** Milliseconds until the reply must be complete, as `afterRunning` counts them. Default 10 000. */
  timeout?: number
  /** The most a reply body may measure, in bytes. Default 1 MiB. */
  limit?: number
  signal?: AbortSignal
}

export interface Reply {
  status: number
  headers: IncomingHttpHeaders
  body: string
}

/**
 * Sends one request to `url`.
 * @throws Fault link.unreachable (details.sent says whether the request may have arrived),
 *   link.identity_mismatch, link.reply_invalid
 */
export async function exchange(url: string, options: ExchangeOptions): Promise<Reply> {
  const target = checkedUrl(url, options.tls !== undefined)
  const { timeout = 10_000 } = options
  using late = runningTimeout(timeout)
  const limits = [late.signal, ...(options.signal ? [options.signal] : [])]
  let sent = false
  try {
    const outgoing = begin(target, options, AbortSignal.any(limits))
    outgoing.once('finish', () => {
      sent = true
    })
    return await reply(outgoing, options.limit ?? 1024 * 1024)
  } catch (cause) {
    if (isFault(cause)) throw cause
    const reason = late.signal.aborted ? `no answer within ${timeout} ms` : messageOf(cause)
    throw linkFault('link.unreachable', `${target.host} cannot be reached: ${reason}`, {
      cause,
      hint: 'check that it runs and that this machine may reach it',
      details: { sent },
    })
  }
}

export interface Download {
  status: number
  /** Throws Fault link.unreachable when it breaks off before its end. */
  body: AsyncIterable<Buffer>
}

/**
 * Sends one request whose reply may be of any length and is read as it comes: the timeout is for
 * silence, not for all of it. Who does not read the body to its end must leave its loop.
 * @throws Fault link.unreachable, link.identity_mismatch
 */
export async function download(
  url: string,
  options: Omit<ExchangeOptions, 'limit'>,
): Promise<Download> {
  const target = checkedUrl(url, options.tls !== undefined)
  const { timeout = 10_000, signal } = options
  const broken = (cause: unknown) => {
    if (isFault(cause)) return cause
    const text = `${target.host} broke the exchange off: ${messageOf(cause)}`
    return linkFault('link.unreachable', text, { cause, hint: 'try again' })
  }
  try {
    const outgoing = begin(target, options, signal ?? new AbortController().signal)
    const silent = () => outgoing.destroy(new Error(`silent for ${timeout} ms`))
    outgoing.setTimeout(timeout, silent)
    const message = await new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once('error', reject)
      outgoing.once('response', resolve)
    })
    return { status: message.statusCode ?? 0, body: whole(message, broken) }
  } catch (cause) {
    throw broken(cause)
  }
}

async function* whole(
  message: IncomingMessage,
  broken: (cause: unknown) => unknown,
): AsyncGenerator<Buffer> {
  try {
    yield* message
  } catch (cause) {
    throw broken(cause)
  }
}

function checkedUrl(url: string, secure: boolean): URL {
  const target = URL.parse(url)
  if (target !== null && target.protocol === (secure ? 'https:' : 'http:')) return target
  throw linkFault(
    'link.address_invalid',
    `"${url.slice(0, 200)}" is not an ${secure ? 'https' : 'http'} address`,
  )
}

function begin(target: URL, options: ExchangeOptions, signal: AbortSignal): ClientRequest {
  const headers: Record<string, string | number> = { ...options.headers }
  if (options.body !== undefined) {
    headers['content-type'] = options.contentType ?? 'application/json'
    headers['content-length'] = Buffer.byteLength(options.body)
  }
  const request = options.tls === undefined ? plainRequest : secureRequest
  const agent = options.tls ?? false
  if (agent instanceof PinnedAgent) agent.dropStale()
  const outgoing = request(target, { method: options.method, headers, agent, signal })
  outgoing.end(options.body)
  return outgoing
}

function reply(outgoing: ClientRequest, limit: number): Promise<Reply> {
  return new Promise((resolve, reject) => {
    outgoing.once('error', reject)
    outgoing.once('response', (message: IncomingMessage) => {
      const chunks: Buffer[] = []
      let size = 0
      message.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size <= limit) chunks.push(chunk)
        else {
          message.destroy()
          reject(linkFault('link.reply_invalid', `the reply is longer than ${limit} bytes`))
        }
      })
      message.once('error', reject)
      message.once('end', () =>
        resolve({
          status: message.statusCode ?? 0,
          headers: message.headers,
          body: Buffer.concat(chunks).toString('utf8'),
        }),
      )
    })
  })
}
