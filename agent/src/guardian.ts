import { randomBytes } from 'node:crypto'
import { isFault, Secret } from '@holdfast/base'
import { curveOf, exchangeKey, jwkOf, parseEcPublicJwk, pointOf, toBytes } from '@holdfast/crypto'
import { isSigned } from '@holdfast/link'
import { agentFault } from './faults.ts'
import { type PeerPurpose, type PeerRequest, probeProof, requestBody } from './peer-protocol.ts'
import type { ReleaseEntry } from './release-entries.ts'
import type { ReleaseLog } from './release-log.ts'
import {
  decideRelease,
  needsWayBack,
  type ReleasePolicy,
  type WardMemory,
} from './release-rules.ts'
import type { WardKey, WardKeys } from './ward-keys.ts'

// A guardian's answers, apart from HTTP. Order of checks: who asks (the connection proved it), the
// nonce, the signature, the key, the rules. Everything that gets as far as naming a ward is written to
// the log before it is answered.

export interface GuardianDeps {
  /** This node's id. */
  node: string
  keys: WardKeys
  log: ReleaseLog
  /** What the log holds already: where the last releases went. */
  history: readonly ReleaseEntry[]
  policy: () => ReleasePolicy
  /** The reason if the coordinator has frozen the node. */
  frozen: (ward: string) => string | undefined
  /** Called for what people should know at once. */
  onIncident: (code: string, text: string) => void
  /** Milliseconds that only ever go forward. */
  monotonic: () => number
}

/** A caller as its connection shows it. */
export interface Caller {
  /** The node whose certificate the TLS connection has proven. */
  node: string
  /** Its address; for one in the tunnel, where WireGuard heard it last. */
  source: string
  /** It asks through the tunnel. Default: no. */
  inside?: boolean
}

const nonceLife = 60_000
/** Outstanding nonces per ward, and probes per hour: generous for a node, little for a thief. */
const mostNonces = 32
const probesPerHour = 600
/**
 * Refusals of one node, and apart from them its moves and holds, that are written down and announced
 * within an hour; the rest is silence. Together with the other rules it bounds what one node adds to
 * the log, of which only the newest segments are kept.
 */
const recordsPerHour = 60

export class Guardian {
  readonly #deps: Omit<GuardianDeps, 'history'>
  readonly #nonces = new Map<string, Map<string, number>>()
  readonly #memories = new Map<string, WardMemory>()
  readonly #probes = new Map<string, number[]>()
  readonly #refusals = new Map<string, number[]>()
  readonly #moves = new Map<string, number[]>()
  readonly #holds = new Map<string, number[]>()

  constructor({ history, ...deps }: GuardianDeps) {
    this.#deps = deps // without the log's entries, of which there may be hundreds of thousands
    for (const { event, ward, source } of history)
      if (event === 'released' || event === 'carried')
        this.#memories.set(ward, { releases: [], lastSource: source })
  }

  /** A nonce for this caller. @throws Fault agent.guardian_rate, agent.guardian_tunnel_refused */
  nonce(caller: Caller): string {
    this.#checkWay(caller)
    const now = this.#deps.monotonic()
    const own = this.#nonces.get(caller.node) ?? new Map<string, number>()
    for (const [nonce, at] of own) if (now - at > nonceLife) own.delete(nonce)
    if (own.size >= mostNonces)
      throw agentFault('agent.guardian_rate', `more than ${mostNonces} requests are under way`)
    const nonce = randomBytes(32).toString('base64url')
    this.#nonces.set(caller.node, own.set(nonce, now))
    return nonce
  }

  /**
   * Answers a recovery: s * point.
   * @throws Fault agent.* saying why not; agent.guardian_held has details.retryAfter
   */
  async release(caller: Caller, kid: string, request: PeerRequest) {
    const key = await this.#admit(caller, 'peer-release', kid, request)
    const { ward, epoch } = request
    await this.#checkRules(caller, ward, epoch)
    using exchange = exchangeKey(key.key)
    const answer = exchange.multiply(pointOf(pointIn(request, key)))
    await this.#log('released', caller, request, '')
    return { point: jwkOf(answer, key.key.crv) }
  }

  /** Shows that the key is there, without releasing anything. */
  async probe(caller: Caller, kid: string, request: PeerRequest) {
    const key = await this.#admit(caller, 'peer-probe', kid, request)
    this.#countProbe(request.ward)
    using exchange = exchangeKey(key.key)
    const { crv } = key.key
    const answer = exchange.multiply(pointOf(pointIn(request, key)))
    using shared = Secret.take(toBytes(answer.x, curveOf(crv).size))
    await this.#log('probed', caller, request, '')
    return { proof: probeProof(shared, requestBody(this.#deps.node, kid, request)) }
  }

  /** Who asks, the nonce, the signature, the freeze list, and the key. */
  async #admit(caller: Caller, purpose: PeerPurpose, kid: string, request: PeerRequest) {
    const deps = this.#deps
    try {
      this.#checkWay(caller)
      if (caller.node !== request.ward)
        throw agentFault('agent.guardian_refused', 'a node can only ask for itself')
      this.#useNonce(caller.node, request.nonce)
      const frozen = deps.frozen(request.ward)
      if (frozen !== undefined)
        throw agentFault('agent.guardian_frozen', `the coordinator has frozen this node: ${frozen}`)
      const key = await deps.keys.find(request.ward, request.epoch, kid)
      const body = requestBody(deps.node, kid, request)
      if (!isSigned(key.identity, purpose, body, request.signature))
        throw agentFault('agent.signature_invalid', 'the request is not signed by the ward')
      return key
    } catch (error) {
      await this.#refused(caller, request, error)
      throw error
    }
  }

  /** Probes go the way that a release must go: else one would prove what cannot be had. */
  #checkWay({ inside = false }: Caller): void {
    if (!inside || !needsWayBack(this.#deps.policy())) return
    const text = 'with rules about sources or a hold it answers outside of the tunnel only'
    throw agentFault('agent.guardian_tunnel_refused', text)
  }

  #useNonce(node: string, nonce: string): void {
    const at = this.#nonces.get(node)?.get(nonce)
    this.#nonces.get(node)?.delete(nonce)
    if (at !== undefined && this.#deps.monotonic() - at <= nonceLife) return
    throw agentFault('agent.nonce_invalid', 'the nonce is not one of the last minute, or was used')
  }

  async #checkRules(caller: Caller, ward: string, epoch: number): Promise<void> {
    const { policy, monotonic, onIncident } = this.#deps
    const memory = this.#memories.get(ward) ?? { releases: [] }
    const { source } = caller
    const decision = decideRelease(policy(), memory, { source, now: monotonic() })
    const about = { ward, epoch }
    if (decision.kind === 'refuse') {
      await this.#refused(caller, about, decision.fault)
      throw decision.fault
    }
    this.#memories.set(ward, decision.memory)
    if (decision.moved && this.#mayRecord(this.#moves, ward)) {
      const text = `node ${ward} asks from ${source} and last asked from ${memory.lastSource}`
      onIncident('peer.ward_moved', text)
      await this.#log('moved', caller, about, '')
    }
    if (decision.kind === 'release') return
    const { retryAfter, begun } = decision
    if (this.#mayRecord(this.#holds, ward)) {
      if (begun) onIncident('peer.release_held', `node ${ward} asks to be opened, from ${source}`)
      await this.#log('held', caller, about, '')
    }
    throw agentFault('agent.guardian_held', `held for another ${retryAfter} seconds`, {
      details: { retryAfter },
    })
  }

  #countProbe(ward: string): void {
    const now = this.#deps.monotonic()
    const recent = (this.#probes.get(ward) ?? []).filter((at) => now - at < 3_600_000)
    if (recent.length >= probesPerHour)
      throw agentFault('agent.guardian_rate', `${recent.length} probes within an hour`)
    this.#probes.set(ward, [...recent, now])
  }

  async #refused(
    caller: Caller,
    request: Pick<PeerRequest, 'ward' | 'epoch'>,
    error: unknown,
  ): Promise<void> {
    const code = isFault(error) ? error.code : 'agent.guardian_refused'
    if (!this.#mayRecord(this.#refusals, caller.node)) return
    await this.#log('refused', caller, request, code)
    const { onIncident } = this.#deps
    if (code === 'agent.guardian_frozen' || code === 'agent.guardian_source')
      onIncident(
        'peer.release_refused',
        `node ${request.ward} asked from ${caller.source}: ${code}`,
      )
    if (code === 'agent.ward_stale')
      onIncident('peer.old_epoch', `node ${request.ward} asked for epoch ${request.epoch}`)
  }

  /** A stolen node must not fill its guardians' disks, nor bury its own alarm. */
  #mayRecord(records: Map<string, number[]>, node: string): boolean {
    const now = this.#deps.monotonic()
    const recent = (records.get(node) ?? []).filter((at) => now - at < 3_600_000)
    if (recent.length >= recordsPerHour) return false
    records.set(node, [...recent, now])
    return true
  }

  async #log(
    event: ReleaseEntry['event'],
    { source }: Caller,
    { ward, epoch }: Pick<PeerRequest, 'ward' | 'epoch'>,
    code: string,
  ): Promise<void> {
    await this.#deps.log.append({ event, ward, epoch, source, code })
  }
}

/** The caller's point, on the key's curve. */
function pointIn({ point }: PeerRequest, { key }: WardKey) {
  const parsed = parseEcPublicJwk(point, 'the point')
  if (parsed.crv === key.crv) return parsed
  throw agentFault('agent.request_malformed', `the point is on ${parsed.crv}, not ${key.crv}`)
}
