import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { canonicalJson, type Fault, isFault, parseJson } from '@holdfast/base'
import { nodeOf, type OwnCertificate, serverTls } from '@holdfast/link'
import { z } from 'zod'
import { agentFault } from './faults.ts'
import type { Caller, Guardian } from './guardian.ts'
import { peerRequestSchema } from './peer-protocol.ts'

// The peer endpoint: HTTPS, TLS 1.3, only nodes whose certificate the fleet has issued. Small bodies,
// short deadlines, few connections: what it answers is needed most when many ask at once.

export interface GuardianServerOptions {
  guardian: Guardian
  own: OwnCertificate
  /** PEM certificate of the fleet's authority. */
  authority: string
  /** Default: all interfaces. */
  host?: string
  /** 0 takes a free one. */
  port: number
}

export interface GuardianServer extends AsyncDisposable {
  readonly port: number
}

/** Where guardians listen unless configured otherwise. */
export const peerPort = 9998

const bodyLimit = 16_384

/** Opens the endpoint; disposing closes it. */
export async function openGuardianServer(options: GuardianServerOptions): Promise<GuardianServer> {
  const { guardian, own, authority, host, port } = options
  const server = createServer(serverTls(own, authority, true), (request, response) => {
    void respond(guardian, request, response)
  })
  server.on('tlsClientError', () => undefined) // strangers are turned away by TLS itself
  server.maxConnections = 512
  server.requestTimeout = 10_000
  server.headersTimeout = 5_000
  server.listen(port, host)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port, // a listening TCP server has one
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

async function respond(
  guardian: Guardian,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const send = (status: number, body: unknown, headers: Record<string, string> = {}) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(`${canonicalJson(body)}\n`)
  }
  try {
    send(200, await answer(guardian, request))
  } catch (error) {
    const fault = asFault(error)
    const { code, message, details = {} } = fault
    const { retryAfter, epochs } = details
    const wait: Record<string, string> =
      retryAfter === undefined ? {} : { 'retry-after': `${retryAfter}` }
    const known = { ...(retryAfter ? { retryAfter } : {}), ...(epochs ? { epochs } : {}) }
    send(statusOf(fault), { error: { code, message, ...known } }, wait)
  }
}

async function answer(guardian: Guardian, request: IncomingMessage): Promise<unknown> {
  const caller = callerOf(request)
  const url = request.url ?? ''
  if (request.method === 'GET' && url === '/peer/nonce') return { nonce: guardian.nonce(caller) }
  const [, action, kid] = /^\/peer\/(rec|probe)\/([\w-]{43})$/.exec(url) ?? []
  if (request.method !== 'POST' || kid === undefined)
    throw agentFault('agent.request_malformed', 'there is no such thing here')
  const body = peerRequestSchema.parse(parseJson(await bodyOf(request), 'the request'))
  return action === 'rec'
    ? await guardian.release(caller, kid, body)
    : await guardian.probe(caller, kid, body)
}

function callerOf(request: IncomingMessage): Caller {
  const node = nodeOf(request.socket)
  if (node === undefined) throw agentFault('agent.guardian_refused', 'only nodes may ask')
  // A socket that listens for both families shows IPv4 callers as ::ffff:192.0.2.1.
  const source = (request.socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '')
  return { node, source }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > bodyLimit) throw agentFault('agent.request_malformed', 'the request is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function asFault(error: unknown): Fault {
  if (isFault(error)) return error
  if (error instanceof z.ZodError)
    return agentFault('agent.request_malformed', 'the request does not have the agreed form')
  return agentFault('agent.guardian_refused', 'the guardian could not answer')
}

function statusOf({ code, kind }: Fault): number {
  if (code === 'agent.guardian_rate') return 429
  if (code === 'agent.guardian_held') return 503
  if (kind === 'absent') return 404
  if (kind === 'invalid') return 400
  return kind === 'integrity' || kind === 'refused' ? 403 : 500
}
