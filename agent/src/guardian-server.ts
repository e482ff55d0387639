import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { TLSSocket } from 'node:tls'
import { canonicalJson, type Fault, isFault, parseJson } from '@holdfast/base'
import {
  type Listener,
  nodeOf,
  type OwnCertificate,
  openListener,
  readBody,
  serverTls,
} from '@holdfast/link'
import { lockedStatePath, unlockPath } from '@holdfast/protocol/locked-state'
import { agentFault } from './faults.ts'
import type { Caller, Guardian } from './guardian.ts'
import type { LockedApi } from './locked-api.ts'
import { checkedRequest, peerRequestSchema } from './peer-protocol.ts'

// The peer endpoint: HTTPS, TLS 1.3. Guarding is for nodes whose certificate the fleet has issued; how
// this node stands and pushing a key is for anybody. Small bodies, short deadlines, few connections,
// and of those only some for strangers: what it answers is needed most when many ask at once.

export interface GuardianServerOptions {
  /** Who answers wards; throws the fault that wards are told when nobody does. */
  guardian: () => Guardian
  /** What strangers may see and do too. */
  lockedApi?: LockedApi
  /** The outside address of a caller in the tunnel; any other as it is. */
  outside?: (source: string) => Promise<string>
  own: OwnCertificate
  /** PEM certificate of the fleet's authority. */
  authority: string
  /** Default: all interfaces. */
  host?: string
  /** 0 takes a free one. */
  port: number
  /** Told of what went wrong here and not with the asker, who is told no more than that it did. */
  onError: (error: unknown) => void
}

export type GuardianServer = Listener

/** Where guardians listen unless configured otherwise. */
export const peerPort = 9998

const bodyLimit = 16_384
const pushLimit = 32_768

/** Opens the endpoint; disposing closes it. */
export async function openGuardianServer(options: GuardianServerOptions): Promise<GuardianServer> {
  const { lockedApi, own, authority, host, port } = options
  // Without anything for strangers, TLS itself turns them away.
  const required = lockedApi === undefined
  const server = createServer(serverTls(own, authority, required), (request, response) => {
    void respond(options, request, response)
  })
  server.on('tlsClientError', () => undefined)
  server.on('secureConnection', limitStrangers())
  server.maxConnections = 512
  server.requestTimeout = 10_000
  server.headersTimeout = 5_000
  return await openListener(server, { port, host })
}

/** Connections of strangers, in all and from one address, at the same time. */
const mostStrangers = 64
const mostStrangersEach = 8

/** Cuts strangers off that would take the connections which wards need. */
function limitStrangers(): (socket: TLSSocket) => void {
  const open = new Map<string, number>()
  let all = 0
  return (socket) => {
    if (nodeOf(socket) !== undefined) return
    const source = socket.remoteAddress ?? ''
    const own = (open.get(source) ?? 0) + 1
    if (all >= mostStrangers || own > mostStrangersEach) {
      socket.destroy()
      return
    }
    all += 1
    open.set(source, own)
    socket.once('close', () => {
      all -= 1
      const rest = (open.get(source) ?? 1) - 1
      if (rest === 0) open.delete(source)
      else open.set(source, rest)
    })
  }
}

async function respond(
  options: GuardianServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const send = (status: number, body: unknown, headers: Record<string, string> = {}) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(`${canonicalJson(body)}\n`)
  }
  try {
    send(200, await answer(options, request))
  } catch (error) {
    if (request.destroyed && !request.complete) return // whoever asked has gone
    const fault = asFault(error, options.onError)
    const { code, message, details = {} } = fault
    const { retryAfter, epochs } = details
    const wait: Record<string, string> =
      retryAfter === undefined ? {} : { 'retry-after': `${retryAfter}` }
    const known = { ...(retryAfter ? { retryAfter } : {}), ...(epochs ? { epochs } : {}) }
    send(statusOf(fault), { error: { code, message, ...known } }, wait)
  }
}

async function answer(
  { guardian, lockedApi, outside }: GuardianServerOptions,
  request: IncomingMessage,
): Promise<unknown> {
  const url = request.url ?? ''
  if (lockedApi !== undefined && request.method === 'GET' && url === lockedStatePath)
    return await lockedApi.state(sourceOf(request))
  if (lockedApi !== undefined && request.method === 'POST' && url === unlockPath)
    return await lockedApi.unlock(sourceOf(request), await jsonOf(request, pushLimit))
  const shown = callerOf(request)
  const caller = { ...shown, source: (await outside?.(shown.source)) ?? shown.source }
  if (request.method === 'GET' && url === '/peer/nonce') return { nonce: guardian().nonce(caller) }
  const [, action, kid] = /^\/peer\/(rec|probe)\/([\w-]{43})$/.exec(url) ?? []
  if (request.method !== 'POST' || kid === undefined)
    throw agentFault('agent.request_malformed', 'there is no such thing here')
  const body = checkedRequest(peerRequestSchema, await jsonOf(request, bodyLimit))
  return action === 'rec'
    ? await guardian().release(caller, kid, body)
    : await guardian().probe(caller, kid, body)
}

function callerOf(request: IncomingMessage): Caller {
  const node = nodeOf(request.socket)
  if (node === undefined) throw agentFault('agent.guardian_refused', 'only nodes may ask')
  return { node, source: sourceOf(request) }
}

/** A socket that listens for both families shows IPv4 callers as ::ffff:192.0.2.1. */
function sourceOf({ socket }: IncomingMessage): string {
  return (socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '')
}

async function jsonOf(request: IncomingMessage, limit: number): Promise<unknown> {
  return parseJson(await readBody(request, limit, tooLong), 'the request', limit)
}

const tooLong = () => agentFault('agent.request_malformed', 'the request is too long')

/**
 * What the asker is told. What is not about the request - a file that cannot be read, a TPM that is
 * silent, a defect of ours - is this node's own business, and outside it is one code and no more.
 */
function asFault(error: unknown, onError: (error: unknown) => void): Fault {
  if (isFault(error) && isAboutRequest(error)) return error
  onError(error)
  return agentFault('agent.guardian_failed', 'this node could not answer')
}

function isAboutRequest({ code, kind }: Fault): boolean {
  if (kind === 'internal') return false
  if (/^(vault|base\.bad|crypto)[._]/.test(code)) return true
  return (
    kind !== 'integrity' && /^agent\.(guardian|ward|nonce|signature|request|push|key)_/.test(code)
  )
}

function statusOf({ code, kind }: Fault): number {
  if (code === 'agent.guardian_rate' || code === 'agent.push_rate') return 429
  if (kind === 'unavailable') return 503
  if (kind === 'absent') return 404
  if (kind === 'invalid') return 400
  return kind === 'integrity' || kind === 'refused' ? 403 : 500
}
