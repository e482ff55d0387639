import type { KeyObject } from 'node:crypto'
import { isIPv4 } from 'node:net'
import { type Clock, messageOf } from '@holdfast/base'
import {
  type NetworkKind,
  peersOf,
  startTunnel,
  type Tunnel,
  type TunnelOptions,
  type TunnelPeerStatus,
} from '@holdfast/link'
import type { Peer } from '@holdfast/protocol/documents'

// This node's tunnel: an interface of its own whose peers are exactly those of the coordinator's signed
// list. It is a second way beside the peer endpoint's own address, never the only one: where it cannot
// be made, or nobody answers through it, nodes talk by mutual TLS outside of it, and every status says
// so with the reason. The interface goes with the process.

export interface NodeNetworkOptions {
  /** Undefined when this node is to have no tunnel. */
  tunnel: Pick<TunnelOptions, 'name' | 'namespace' | 'kinds' | 'askName'> | undefined
  /** X25519. */
  key: KeyObject
  /** UDP. */
  port: number
  /** Own address with the pool's prefix length. */
  address: string
  onChange: () => void
  clock: Clock
  signal: AbortSignal
}

/** What is really in use. */
export interface NetworkStatus {
  network: NetworkKind
  networkReason?: string
}

/** Handshakes are made anew every two minutes while packets flow; keepalives make them flow. */
const fresh = 180_000
const longestWait = 60_000
/** How often it is looked whether somebody answers, while nobody does. */
const lookInterval = 5_000

export class NodeNetwork implements AsyncDisposable {
  readonly #options: NodeNetworkOptions
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  #running: Promise<void> = Promise.resolve()
  #tunnel: Tunnel | undefined
  #reason = 'the tunnel is being made'
  /** Why there is no way to some of the peers, although there is a tunnel. */
  #left = ''
  #peers: readonly Peer[] = []
  #applying: Promise<void> = Promise.resolve()

  private constructor(options: NodeNetworkOptions) {
    this.#options = options
    this.#signal = AbortSignal.any([options.signal, this.#stop.signal])
  }

  static start(options: NodeNetworkOptions): NodeNetwork {
    const network = new NodeNetwork(options)
    if (options.tunnel === undefined) network.#reason = 'this node was started without a tunnel'
    else network.#running = network.#run(options.tunnel)
    return network
  }

  /** Makes the peers exactly these; resolves when they are. Failures are in the status. */
  async use(peers: readonly Peer[]): Promise<void> {
    this.#peers = peers
    this.#applying = this.#applying.then(() => this.#apply())
    await this.#applying
  }

  /** Where a node's peer endpoint is in the tunnel; undefined while there is none. */
  urlOf(node: string): string | undefined {
    const peer = this.#peers.find((each) => each.node === node)
    if (this.#tunnel === undefined || peer === undefined || peer.wireguard === '') return undefined
    const port = URL.parse(peer.urls[0] ?? '')?.port ?? ''
    return `https://${peer.address}:${port === '' ? 9998 : port}`
  }

  /** Says whether this is the address of a peer in the tunnel. */
  isInside(source: string): boolean {
    return this.#peers.some(({ address }) => address === source)
  }

  /**
   * The outside address of whoever speaks from this address in the tunnel; the address itself when it
   * is none of a peer. It is where the last authentic packet came from, which its sender may have made
   * up: good for a log, not for rules about sources.
   */
  async outsideOf(source: string): Promise<string> {
    const peer = this.#peers.find(({ address }) => address === source)
    if (peer === undefined) return source
    const status = (await this.#status()).find(({ publicKey }) => publicKey === peer.wireguard)
    return hostOf(status?.endpoint) ?? source
  }

  async status(): Promise<NetworkStatus> {
    const tunnel = this.#tunnel
    const because = (networkReason: string) =>
      ({ network: 'mutual-tls', networkReason: networkReason.slice(0, 500) }) as const
    if (tunnel === undefined) return because(this.#reason)
    if (this.#reason !== '') return because(this.#reason)
    const answering = await this.#isAnswering()
    const left = this.#left
    if (answering) return { network: tunnel.kind, ...(left === '' ? {} : { networkReason: left }) }
    const lone = `${tunnel.kind} runs, and nobody answers through it`
    return because(left === '' ? lone : `${lone}; none ${left}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #isAnswering(): Promise<boolean> {
    const now = this.#options.clock.now()
    return (await this.#status()).some(
      ({ handshakeAt }) => handshakeAt !== undefined && now - handshakeAt < fresh,
    )
  }

  async #status(): Promise<TunnelPeerStatus[]> {
    return (await this.#tunnel?.status().catch(() => [])) ?? []
  }

  async #run(tunnel: NonNullable<NodeNetworkOptions['tunnel']>): Promise<void> {
    const { clock, address } = this.#options
    for (let failures = 0; !this.#signal.aborted; failures += 1) {
      try {
        const started = await startTunnel({ ...tunnel, address })
        if (!('apply' in started)) {
          this.#say(`no tunnel can be made: ${started.reasons.join('; ')}`)
          return
        }
        await this.#serve(started)
        failures = 0
      } catch (error) {
        this.#say(messageOf(error))
      }
      const wait = Math.min(longestWait, 1_000 * 2 ** Math.min(failures, 10))
      await clock.sleep(wait, this.#signal).catch(() => undefined) // stopping
    }
  }

  /** One tunnel, until it is lost or the node stops. */
  async #serve(tunnel: Tunnel): Promise<void> {
    await using _ = tunnel
    this.#tunnel = tunnel
    const over = new AbortController()
    const ended = AbortSignal.any([this.#signal, over.signal])
    try {
      await this.use(this.#peers)
      const lost = await Promise.race([tunnel.lost, this.#repair(ended), this.#watch(ended)])
      if (lost !== undefined) this.#say(lost)
    } finally {
      over.abort()
      this.#tunnel = undefined
    }
  }

  /** Tries again what could not be applied, such as a name that nobody knew. Until the signal. */
  async #repair(ended: AbortSignal): Promise<undefined> {
    while (!ended.aborted) {
      await this.#options.clock.sleep(longestWait, ended).catch(() => undefined) // it has ended
      if (!ended.aborted && (this.#left !== '' || this.#reason !== '')) await this.use(this.#peers)
    }
    return undefined
  }

  /** Tells when somebody begins to answer, some time after the tunnel has been made, or nobody does any more. */
  async #watch(ended: AbortSignal): Promise<undefined> {
    let answering = false
    while (!ended.aborted) {
      const wait = answering ? longestWait : lookInterval
      await this.#options.clock.sleep(wait, ended).catch(() => undefined) // it has ended
      const now = this.#peers.length > 0 && (await this.#isAnswering())
      if (ended.aborted || now === answering) continue
      answering = now
      this.#options.onChange()
    }
    return undefined
  }

  async #apply(): Promise<void> {
    const { key, port } = this.#options
    const tunnel = this.#tunnel
    if (tunnel === undefined) return
    try {
      const left = await tunnel.apply({ key, port, peers: peersOf(this.#peers) })
      this.#say('', left.join('; ').slice(0, 500))
    } catch (error) {
      this.#say(messageOf(error))
    }
  }

  #say(reason: string, left = ''): void {
    if (this.#reason === reason && this.#left === left) return
    this.#reason = reason
    this.#left = left
    this.#options.onChange()
  }
}

/** The address of `host:port` or `[host]:port`. */
function hostOf(endpoint: string | undefined): string | undefined {
  const [, six, four] = /^(?:\[([^\]]+)\]|([^:]+)):\d+$/.exec(endpoint ?? '') ?? []
  if (four !== undefined) return isIPv4(four) ? four : undefined
  return six?.replace(/^::ffff:(?=\d+\.)/, '')
}
