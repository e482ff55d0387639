import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { TLSSocket } from 'node:tls'
import { canonicalJson, type Fault, isFault, parseJson } from '@holdfast/base'
import {
  boundUnsecured,
  type Listener,
  nodeOf,
  type OwnCertificate,
  openListener,
  readBody,
  serverTls,
  sourceOf,
} from '@holdfast/link'
import { lockedStatePath, unlockPath } from '@holdfast/protocol/locked-state'
import { agentFault } from './faults.ts'
import type { Caller, Guardian } from './guardian.ts'
import type { LockedApi } from './locked-api.ts'
import { checkedRequest, peerRequestSchema } from './peer-protocol.ts'

// The peer endpoint: HTTPS, TLS 1.3. Guarding is for nodes whose certificate the fleet has issued; how
// this node stands and pushing a key is for anybody. Small bodies, short deadlines, few connections,
// and of those only some for strangers, and for those who have not even shown a certificate: what it
// answers is needed most when many ask at once.

export interface GuardianServerOptions {
  /** Who answers wards; throws the fault that wards are told when nobody does. */
  guardian: () => Guardian
  /** What strangers may see and do too. */
  lockedApi?: LockedApi
  /** The outside address of a caller in the tunnel; any other as it is. */
  outside?: (source: string) => Promise<string>
  /** Says whether this is the address of a caller in the tunnel. */
  inside?: (source: string) => boolean
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

/** Opens the endpoint; once it is disposed of, nothing that it was asked is under way any more. */
export async function openGuardianServer(options: GuardianServerOptions): Promise<GuardianServer> {
  const { lockedApi, own, authority, host, port } = options
  // Without anything for strangers, TLS itself turns them away.
  const required = lockedApi === undefined
  const tls = { ...serverTls(own, authority, required), connectionsCheckingInterval: 1_000 }
  const answering = new Set<Promise<void>>()
  const server = createServer(tls, (request, response) => {
    const one = respond(options, request, response).finally(() => answering.delete(one))
    answering.add(one)
  })
  server.on('tlsClientError', () => undefined)
  boundUnsecured(server, unsecured)
  server.on('secureConnection', limitCallers())
  server.maxConnections = unsecured.most + mostStrangers + mostSecured
  server.requestTimeout = 10_000
  server.headersTimeout = 5_000
  const listener = await openListener(server, { port, host })
  return {
    port: listener.port,
    [Symbol.asyncDispose]: async () => {
      await listener[Symbol.asyncDispose]()
      await Promise.all(answering)
    },
  }
}

/** Connections before the end of their handshake; one takes milliseconds, over a slow line a second. */
const unsecured = { most: 512, each: 256, within: 5_000 }
/** Connections of strangers, in all and from one source, at the same time. */
const mostStrangers = 64
const mostStrangersEach = 8
/** Connections of nodes, and of one node, which asks for a few epochs at several addresses at most. */
const mostSecured = 448
const mostSecuredEach = 32

/** Cuts those off that would take the connections which wards need. */
function limitCallers(): (socket: TLSSocket) => void {
  const open = new Map<string, number>()
  let strangers = 0
  return (socket) => {
    const node = nodeOf(socket)
    const stranger = node === undefined
    const name = node ?? `source ${sourceOf(socket.remoteAddress ?? '')}`
    const own = (open.get(name) ?? 0) + 1
    const full = stranger && strangers >= mostStrangers
    if (full || own > (stranger ? mostStrangersEach : mostSecuredEach)) {
      socket.destroy()
      return
    }
    if (stranger) strangers += 1
    open.set(name, own)
    socket.once('close', () => {
      if (stranger) strangers -= 1
      const rest = (open.get(name) ?? 1) - 1
      if (rest === 0) open.delete(name)
      else open.set(name, rest)
    })
  }
}

async function respond(
  options: GuardianServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    const reply = await replyTo(options, request)
    if (reply === undefined) return
    const { status, body, headers = {} } = reply
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(`${canonicalJson(body)}\n`)
  } catch (error) {
    // Nobody waits for this: thrown further it would end the agent, and with it the node's own way in.
    options.onError(error)
    response.destroy()
  }
}

interface Answer {
  status: number
  body: unknown
  headers?: Record<string, string>
}

/** What is said, also of what went wrong; undefined when whoever asked has gone. */
async function replyTo(
  options: GuardianServerOptions,
  request: IncomingMessage,
): Promise<Answer | undefined> {
  try {
    return { status: 200, body: await answer(options, request) }
  } catch (error) {
    if (request.destroyed && !request.complete) return undefined
    const fault = asFault(error, options.onError)
    const { code, message, details = {} } = fault
    const { retryAfter, epochs } = details
    const known = { ...(retryAfter ? { retryAfter } : {}), ...(epochs ? { epochs } : {}) }
    const headers: Record<string, string> =
      retryAfter === undefined ? {} : { 'retry-after': `${retryAfter}` }
    return { status: statusOf(fault), body: { error: { code, message, ...known } }, headers }
  }
}

async function answer(
  { guardian, lockedApi, outside, inside }: GuardianServerOptions,
  request: IncomingMessage,
): Promise<unknown> {
  const url = request.url ?? ''
  if (lockedApi !== undefined && request.method === 'GET' && url === lockedStatePath)
    return await lockedApi.state(addressOf(request))
  if (lockedApi !== undefined && request.method === 'POST' && url === unlockPath)
    return await lockedApi.unlock(addressOf(request), await jsonOf(request, pushLimit))
  const shown = callerOf(request)
  const source = (await outside?.(shown.source)) ?? shown.source
  const caller = { ...shown, source, inside: inside?.(shown.source) ?? false }
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
  return { node, source: addressOf(request) }
}

/** A socket that listens for both families shows IPv4 callers as ::ffff:192.0.2.1. */
function addressOf({ socket }: IncomingMessage): string {
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
