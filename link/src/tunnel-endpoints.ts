import { lookup } from 'node:dns/promises'
import { isIPv4, isIPv6 } from 'node:net'
import { messageOf } from '@holdfast/base'
import type { TunnelPeer } from './wireguard.ts'

// Where peers are. `wg syncconf` takes all peers or none, and asks for names itself, again and again
// while a name server is silent. So it is given addresses only, and what is none is left out: one peer's
// nonsense, or a name that has gone, must not take the tunnels to all the others. A peer without an
// endpoint keeps the one it had, and is heard when it speaks first.

/** How long all names together may take. */
const namesWithin = 5_000

interface Endpoints {
  /** All peers, with an endpoint where there is one that can be used. */
  peers: TunnelPeer[]
  /** Which endpoints were left out and why, a sentence each: `to HOST:PORT: …`. */
  left: string[]
}

/** The first address of a name. @throws when there is none */
export type AskName = (name: string) => Promise<string>

const byResolver: AskName = async (name) => (await lookup(name)).address

/** Asks for names, for one at a time only once however often it is wanted meanwhile. */
export class EndpointNames {
  readonly #ask: AskName
  readonly #within: number
  readonly #asking = new Map<string, Promise<string>>()

  constructor(ask: AskName = byResolver, within = namesWithin) {
    this.#ask = ask
    this.#within = within
  }

  /** Puts addresses in place of names. Never throws. */
  async resolve(peers: readonly TunnelPeer[]): Promise<Endpoints> {
    const late = Promise.withResolvers<never>()
    late.promise.catch(() => undefined) // nobody may be waiting any more
    const timer = setTimeout(
      () => late.reject(new Error('its name has had no answer yet')),
      this.#within,
    )
    const left: string[] = []
    try {
      const resolved = peers.map(async ({ endpoint, ...peer }): Promise<TunnelPeer> => {
        if (endpoint === undefined) return peer
        try {
          return {
            ...peer,
            endpoint: await Promise.race([this.#addressOf(endpoint), late.promise]),
          }
        } catch (error) {
          left.push(`to ${endpoint.slice(0, 100)}: ${messageOf(error)}`)
          return peer
        }
      })
      return { peers: await Promise.all(resolved), left: left.sort() }
    } finally {
      clearTimeout(timer)
    }
  }

  async #addressOf(endpoint: string): Promise<string> {
    const [, six = '', host = '', port = ''] = endpointPattern.exec(endpoint) ?? []
    const known = isIPv6(six) || (host !== '' && host.length <= 253)
    if (!known || Number(port) < 1 || Number(port) > 65_535)
      throw new Error('this is not a host and a port')
    if (six !== '' || isIPv4(host)) return endpoint
    const address = await this.#asked(host)
    return isIPv4(address) ? `${address}:${port}` : `[${address}]:${port}`
  }

  #asked(name: string): Promise<string> {
    const begun = this.#asking.get(name)
    if (begun !== undefined) return begun
    const asking = this.#ask(name).finally(() => this.#asking.delete(name))
    asking.catch(() => undefined) // whoever waited may have given up
    this.#asking.set(name, asking)
    return asking
  }
}

const endpointPattern = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/
