import type { Agent } from 'node:https'
import { isIPv6 } from 'node:net'
import { type Fault, parseJson } from '@holdfast/base'
import { exchange, linkFault, pinnedTls, type Reply } from '@holdfast/link'
import { shownIdentity } from '@holdfast/link/api-client'
import {
  type LockedState,
  lockedErrorSchema,
  lockedStatePath,
  lockedStateSchema,
  type UnlockAnswer,
  unlockAnswerSchema,
  unlockPath,
} from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context } from './command.ts'
import { cliFault } from './faults.ts'
import { toldFault } from './node-failure.ts'

// A node at its own peer port, without a coordinator between. Its id is its pin: the digest of the
// identity key that its certificate is on.

/** Where guardians listen unless configured otherwise. */
const usualPort = 9998
/** Milliseconds; a vault takes its time to try a key. */
const patience = 60_000
/** Milliseconds for what is good to know and may be out of reach. */
const shortPatience = 4_000

export class LockedNode implements Disposable {
  readonly url: string
  readonly #pin: string
  readonly #tls: Agent
  readonly #signal: AbortSignal

  private constructor(url: string, pin: string, signal: AbortSignal) {
    this.url = url
    this.#pin = pin
    this.#tls = pinnedTls(pin)
    this.#signal = signal
  }

  /**
   * @param at `HOST`, `HOST:PORT` or `[v6]:PORT`
   * @param pin the node's id; without one a person at the terminal confirms what is found
   * @throws Fault cli.identity_unconfirmed, cli.usage
   */
  static async connect(at: string, pin: string | undefined, context: Context): Promise<LockedNode> {
    const url = peerUrl(at)
    return new LockedNode(url, pin ?? (await confirmedPin(url, context)), context.signal)
  }

  /** What it has and what it needs. @throws Fault link.*, and the node's own */
  async state(): Promise<LockedState> {
    const state = await this.#ask(lockedStatePath, 'GET', lockedStateSchema)
    if (state.node === this.#pin) return state
    throw linkFault('link.reply_malformed', `${this.url} speaks for another node, ${state.node}`)
  }

  /** Pushes a sealed passphrase. @throws as `state` */
  async unlock(sealed: string): Promise<UnlockAnswer> {
    return await this.#ask(unlockPath, 'POST', unlockAnswerSchema, JSON.stringify({ sealed }))
  }

  async #ask<T>(
    path: string,
    method: 'GET' | 'POST',
    schema: z.ZodType<T>,
    body?: string,
  ): Promise<T> {
    const reply = await exchange(`${this.url}${path}`, {
      method,
      tls: this.#tls,
      timeout: patience,
      signal: this.#signal,
      ...(body === undefined ? {} : { body }),
    })
    if (reply.status !== 200) throw refusal(reply, this.url)
    return schema.parse(parseJson(reply.body, `the answer of ${this.url}`, 1024 * 1024))
  }

  [Symbol.dispose](): void {
    this.#tls.destroy()
  }
}

/** `HOST:PORT` of a node's peer endpoint; without the port when that is unknown or the usual one. */
export function placeOf(address: string, port = usualPort): string {
  if (port === usualPort) return address
  return `${isIPv6(address) ? `[${address}]` : address}:${port}`
}

/**
 * What a node says at its own peer port, when this machine can reach it: often it cannot, because the
 * node is behind somebody's router. Only its own word is taken: its id is the pin.
 */
export async function lockedStateOf(
  { address, peerPort, node }: { address: string; peerPort?: number | undefined; node: string },
  context: Context,
): Promise<LockedState | undefined> {
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(shortPatience)])
  try {
    using locked = await LockedNode.connect(placeOf(address, peerPort), node, {
      ...context,
      signal,
    })
    return await locked.state()
  } catch {
    context.signal.throwIfAborted()
    return undefined
  }
}

/** `https://HOST:PORT` of a node's peer port. @throws Fault cli.usage */
export function peerUrl(at: string): string {
  const url = URL.parse(`https://${at}`)
  const bare = url !== null && url.pathname === '/' && url.search === '' && url.username === ''
  if (!bare || at.includes('/')) {
    throw cliFault('cli.usage', `"${at}" is not an address`, {
      hint: '--at HOST or --at HOST:PORT',
    })
  }
  return `https://${url.hostname}:${/:\d+$/.test(at) ? url.port || '443' : usualPort}`
}

async function confirmedPin(url: string, { terminal, signal }: Context): Promise<string> {
  if (terminal !== undefined) {
    const shown = await shownIdentity(url, signal)
    const question = `${url} shows the node id ${shown}. Is it the one you mean?`
    if (await terminal.confirm(question, signal)) return shown
  }
  throw cliFault('cli.identity_unconfirmed', `it is not known which node ${url} must be`, {
    hint: 'give its id: --pin ID, as holdfast node show had it',
  })
}

function refusal({ body, status }: Reply, url: string): Fault {
  const parsed = lockedErrorSchema.safeParse(tolerant(body))
  if (!parsed.success) {
    return linkFault('link.reply_malformed', `${url} answers ${status} without an error of ours`)
  }
  const { code, message, retryAfter } = parsed.data.error
  const hint = retryAfter === undefined ? undefined : `try again in ${Math.ceil(retryAfter)} s`
  return toldFault(code, message, hint === undefined ? {} : { hint })
}

function tolerant(body: string): unknown {
  try {
    return parseJson(body, 'the answer')
  } catch {
    return undefined // said by whoever finds no error in it
  }
}
