import type { KeyObject } from 'node:crypto'
import { Agent, type AgentOptions } from 'node:https'
import type { Duplex } from 'node:stream'
import {
  type ConnectionOptions,
  connect,
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  TLSSocket,
  type TlsOptions,
} from 'node:tls'
import { afterRunning, systemClock } from '@holdfast/base'
import { linkFault } from './faults.ts'
import { keyId } from './key-id.ts'

// TLS rules of the fleet. TLS 1.3 only. A client knows the digest of the server's public key
// beforehand and sends no byte, not even a request line, to any other. Names and dates in
// certificates decide nothing: a node's clock may say 1970 and its address may change.

/** The certificate and key that one end shows. */
export interface OwnCertificate {
  key: KeyObject
  /** PEM. */
  certificate: string
}

export interface PinnedTlsOptions {
  /** Shown to a server that asks. */
  own?: OwnCertificate
  /** PEM of the fleet's authority: the server's certificate must also be issued by it. */
  authority?: string
  /** Milliseconds until the handshake must be done, as `afterRunning` counts them. Default 10 000. */
  timeout?: number
  /** The address of this machine to connect from; default the system's choice. */
  from?: string
}

/**
 * An agent for `https.request` and `ws` that talks only to the server whose public key has this
 * digest (`keyId`).
 * Requests fail with Fault link.identity_mismatch when another answers, link.unreachable when none
 * does.
 */
export function pinnedTls(identity: string, options: PinnedTlsOptions = {}): Agent {
  return new PinnedAgent(identity, options)
}

type Connected = (error: Error | null, stream: Duplex) => void

/** Milliseconds that a connection may lie idle and still be used; servers of the fleet keep theirs for ten seconds. */
const longestIdle = 5_000

/** What `pinnedTls` makes. */
export class PinnedAgent extends Agent {
  readonly #identity: string
  readonly #pinned: PinnedTlsOptions
  /** Made once: reading keys and certificates takes as long as half a handshake. */
  #context: SecureContext | undefined
  /** When each connection that is kept was used last. */
  readonly #usedAt = new WeakMap<object, number>()

  constructor(identity: string, options: PinnedTlsOptions) {
    const { from } = options
    const own = from === undefined ? {} : { localAddress: from }
    super({ keepAlive: true, maxCachedSessions: 0, ...own })
    this.#identity = identity
    this.#pinned = options
    this.on('free', (socket: object) => this.#usedAt.set(socket, systemClock.now()))
  }

  /**
   * Gives up connections that the other end may have closed: a process that was stopped for a while, or
   * whose machine slept, has not heard of it yet, and its next request would fail.
   */
  dropStale(): void {
    const now = systemClock.now()
    for (const socket of Object.values(this.freeSockets).flatMap((kept) => kept ?? []))
      if (Math.abs(now - (this.#usedAt.get(socket) ?? 0)) >= longestIdle) socket.destroy()
  }

  /** Hands the socket over only after the identity is known to be right. */
  override createConnection(options: AgentOptions, callback?: Connected): undefined {
    const { host, port, path: _path, ...rest } = options as ConnectionOptions // an agent gets what connect takes
    this.#context ??= createSecureContext(contextOptions(this.#pinned))
    const socket = connect({ ...rest, ...clientOptions, secureContext: this.#context, host, port })
    const target = `${host}:${port}`
    // The callback's type has no failure without a stream; Node ignores it when there is an error.
    const done = (error: Error | null) => callback?.(error, socket)
    const timeout = this.#pinned.timeout ?? 10_000
    const deadline = afterRunning(timeout, () =>
      socket.destroy(new Error(`no handshake within ${timeout} ms`)),
    )
    const failed = (error: Error) => {
      deadline[Symbol.dispose]()
      done(unreachable(target, error))
    }
    socket.once('error', failed)
    socket.once('secureConnect', () => {
      deadline[Symbol.dispose]()
      socket.off('error', failed)
      const wrong = wrongIdentity(socket, this.#identity, this.#pinned.authority, target)
      if (wrong === undefined) return done(null)
      socket.on('error', () => undefined) // what a refused stranger does next is of no interest
      socket.destroy()
      done(wrong)
    })
    return undefined
  }
}

const clientOptions: ConnectionOptions = {
  rejectUnauthorized: false, // `wrongIdentity` decides instead, before anything is sent
  servername: '', // addresses are not names; nothing is chosen by it
  checkServerIdentity: () => undefined,
}

function contextOptions({ own, authority }: PinnedTlsOptions): SecureContextOptions {
  return {
    minVersion: 'TLSv1.3',
    ...(own === undefined ? {} : ownOptions(own)),
    ...(authority === undefined ? {} : { ca: authority }),
  }
}

function ownOptions(own: OwnCertificate): { key: string; cert: string } {
  return {
    key: own.key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    cert: own.certificate,
  }
}

function wrongIdentity(
  socket: TLSSocket,
  identity: string,
  authority: string | undefined,
  target: string,
): Error | undefined {
  const shown = presentedId(socket)
  const issued = authority === undefined || socket.authorized
  if (shown === identity && issued) return undefined
  const reason =
    shown === identity
      ? 'its certificate is not issued by the fleet'
      : `its identity is ${shown ?? 'absent'} and not ${identity}`
  return linkFault('link.identity_mismatch', `${target} is not the expected peer: ${reason}`, {
    hint: 'check the address; if the peer was replaced, its new identity must be given on purpose',
    details: { target, expected: identity, shown },
  })
}

/** The digest of the public key that the other end has proven to hold. */
function presentedId(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate()
  return certificate === undefined ? undefined : keyId(certificate.publicKey)
}

function unreachable(target: string, cause: Error): Error {
  return linkFault('link.unreachable', `${target} cannot be reached: ${cause.message}`, {
    cause,
    hint: 'check that it runs and that this machine may reach it',
  })
}

/**
 * Options for a server. `authority` is the fleet's certificate, PEM. With `required`, only nodes may
 * connect; without, others may too and `nodeOf` tells them apart.
 */
export function serverTls(own: OwnCertificate, authority?: string, required = false): TlsOptions {
  return {
    minVersion: 'TLSv1.3',
    ...ownOptions(own),
    // Without an authority nobody is a node; asking would only make browsers show a dialogue.
    ...(authority === undefined ? {} : { ca: authority, requestCert: true }),
    rejectUnauthorized: required,
  }
}

/** The node id of a client that proved a key which the fleet's authority has certified. */
export function nodeOf(socket: unknown): string | undefined {
  return socket instanceof TLSSocket && socket.authorized ? presentedId(socket) : undefined
}
