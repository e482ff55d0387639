import { createPublicKey } from 'node:crypto'
import { join } from 'node:path'
import { type Clock, DurableRecord, isFault, messageOf } from '@holdfast/base'
import {
  type Addressee,
  type AgentSession,
  type Backoff,
  checkCommand,
  checkErrand,
  connectSession,
  type Hello,
  type Instruction,
  isSigned,
  keyId,
  pinnedTls,
  type SessionState,
  signBody,
  type Welcome,
} from '@holdfast/link'
import type { AgentFrame, Enrolment, NodeReport } from '@holdfast/protocol/frames'
import { z } from 'zod'
import type { Commands } from './commands.ts'
import { Documents } from './documents.ts'
import { agentFault } from './faults.ts'
import { Guarding } from './guarding.ts'
import type { NodeKeys } from './identity.ts'
import type { KeySeal } from './key-seal.ts'
import { declines } from './life.ts'
import type { LifeEvent } from './life-event.ts'
import type { GuardianSet, LifeState } from './life-state.ts'
import type { LockedApi } from './locked-api.ts'
import { NodeNetwork, type NodeNetworkOptions } from './node-network.ts'
import type { WardIdentity } from './peer-client.ts'
import type { ReleasePolicy } from './release-rules.ts'
import { WardKeys } from './ward-keys.ts'

// What an enrolled node takes part in: the session with the coordinator, and the peer endpoint for its
// wards. Both run whatever the vault is doing, because a locked node must still guard others.

export interface MembershipDeps {
  directory: string
  keys: NodeKeys
  keeping: KeySeal
  enrolment: Enrolment
  host?: string
  peerPort: number
  wireguardPort: number
  tunnel: NodeNetworkOptions['tunnel']
  clock: Clock
  commands: Commands
  lockedApi: LockedApi
  /** What the node says of itself when it greets. */
  report: () => Promise<NodeReport>
  tell: (event: LifeEvent) => Promise<boolean>
  state: () => LifeState
  onSession?: (state: SessionState) => void
  onNetwork: () => void
  /** The peer endpoint is there, which may be later than the session. */
  onPeerPort: (port: number) => void
  backoff?: Backoff
  onIncident: (code: string, text: string) => void
  signal: AbortSignal
}

type Frame<Kind extends Instruction['kind']> = Extract<Instruction, { kind: Kind }>

const witnessSchema = z.strictObject({
  cluster: z.string(),
  generation: z.number().int(),
  proof: z.string(),
})
type Witness = z.infer<typeof witnessSchema>

const rulesSchema = z.looseObject({
  holdMinutes: z.number().min(0).default(0),
  releasesPerHour: z.number().int().min(1).default(60),
  sources: z.array(z.string()).default([]),
})

/** What a guardian signs of a key it made; wards check it. */
export function wardKeyBody(
  cluster: string,
  guardian: string,
  ward: string,
  epoch: number,
  key: Record<string, unknown>,
) {
  return { cluster, guardian, ward, epoch, key }
}

export class Membership implements AsyncDisposable {
  readonly wards: WardKeys
  readonly documents: Documents
  readonly network: NodeNetwork
  readonly #deps: MembershipDeps
  readonly #witness: DurableRecord<Witness>
  readonly #stack = new AsyncDisposableStack()
  #guarding: Guarding | undefined
  #session: AgentSession | undefined
  #witnessed: Witness | undefined
  #remembering: Promise<void> = Promise.resolve()

  private constructor(deps: MembershipDeps, documents: Documents) {
    this.#deps = deps
    this.documents = documents
    this.wards = new WardKeys(deps.directory, deps.keeping)
    this.network = this.#stack.use(
      NodeNetwork.start({
        tunnel: deps.tunnel,
        key: deps.keys.wireguard,
        port: deps.wireguardPort,
        address: deps.enrolment.address,
        onChange: deps.onNetwork,
        clock: deps.clock,
        signal: deps.signal,
      }),
    )
    this.#witness = new DurableRecord(join(deps.directory, 'witness.json'), (value) =>
      witnessSchema.parse(value),
    )
  }

  static async start(deps: MembershipDeps): Promise<Membership> {
    const { directory, keys, enrolment } = deps
    const { cluster, commandKey } = enrolment
    const documents = await Documents.open({ directory, cluster, node: keys.node, commandKey })
    const membership = new Membership(deps, documents)
    try {
      await membership.#start()
    } catch (error) {
      await membership[Symbol.asyncDispose]()
      throw error
    }
    return membership
  }

  get generation(): number {
    return this.#witnessed?.generation ?? 0
  }

  /** Kept over reconnections; resolves when a coordinator has it. */
  async deliver(frame: AgentFrame): Promise<void> {
    if (this.#session === undefined)
      throw agentFault('agent.not_connected', 'the agent is starting or stopping')
    await this.#session.deliver(frame)
  }

  /** Says something now or, without a session, not at all. */
  async send(frame: AgentFrame): Promise<void> {
    if (this.#session?.state.kind === 'open') await this.#session.send(frame)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
    await this.#remembering
  }

  async #start(): Promise<void> {
    this.#witnessed = await this.#witness.read()
    await this.network.use(this.documents.peers?.peers ?? [])
    this.#guarding = this.#stack.use(await this.#guard())
    this.#session = this.#stack.use(this.#connect())
  }

  async #guard(): Promise<Guarding> {
    const { directory, keys, enrolment, host, peerPort, clock, onIncident, ...deps } = this.#deps
    const { lockedApi, onPeerPort, backoff, signal } = deps
    return await Guarding.start({
      directory,
      guardian: {
        node: keys.node,
        keys: this.wards,
        policy: () => this.#rules(),
        frozen: (ward) => this.documents.frozen(ward),
        onIncident,
        monotonic: () => performance.now(),
      },
      server: {
        lockedApi,
        outside: (source) => this.network.outsideOf(source),
        inside: (source) => this.network.isInside(source),
        own: { key: keys.identity, certificate: enrolment.certificate },
        authority: enrolment.authority,
        port: peerPort,
        ...(host === undefined ? {} : { host }),
      },
      onPort: onPeerPort,
      clock,
      ...(backoff === undefined ? {} : { backoff }),
      signal,
    })
  }

  #connect(): AgentSession {
    const { keys, enrolment, clock, signal, commands, onSession } = this.#deps
    const own = { key: keys.identity, certificate: enrolment.certificate }
    return connectSession({
      urls: enrolment.coordinators,
      tls: pinnedTls(enrolment.coordinatorIdentity, { own }),
      hello: () => this.#hello(),
      onFrame: (frame) => this.#receive(frame),
      onState: (state) => {
        if (state.kind === 'open') this.#remember(state.welcome)
        commands.connected(state.kind === 'open')
        onSession?.(state)
      },
      clock,
      signal,
    })
  }

  /** The rules of the manifest; none of them yet means the strictest sensible ones. */
  #rules(): ReleasePolicy {
    const { holdMinutes, releasesPerHour, sources } = rulesSchema.parse(
      this.documents.policy?.guardians ?? {},
    )
    return { holdMinutes, releasesPerHour, sources }
  }

  async #hello(): Promise<Hello> {
    const witnessed = this.#witnessed
    return {
      kind: 'hello',
      node: this.#deps.keys.node,
      protocol: 1,
      ...(witnessed === undefined ? {} : { witnessed }),
      report: await this.#deps.report(),
    }
  }

  /** One after the other, and none when this has ended. */
  #remember(welcome: Welcome): void {
    this.#remembering = this.#remembering.then(() => this.#welcomed(welcome))
  }

  /** Remembers the highest generation, and says when the coordinator has gone back. */
  async #welcomed({ cluster, generation, proof }: Welcome): Promise<void> {
    const { onIncident } = this.#deps
    const known = this.#witnessed
    if (known !== undefined && generation < known.generation) {
      const text = `the coordinator is at generation ${generation} and was at ${known.generation}`
      return onIncident('coordinator.rolled_back', text)
    }
    if (known?.generation === generation) return
    this.#witnessed = { cluster, generation, proof }
    try {
      await this.#witness.write(this.#witnessed)
    } catch (error) {
      onIncident('agent.witness_unwritten', messageOf(error))
    }
  }

  /** Acts on one instruction. What is wrong with it is told, and does not end the session. */
  async #receive(frame: Instruction): Promise<void> {
    try {
      await this.#act(frame)
    } catch (error) {
      if (!isFault(error) && !(error instanceof z.ZodError)) throw error
      const code = isFault(error) ? error.code : 'agent.request_malformed'
      this.#deps.onIncident(code, messageOf(error))
      if (frame.kind === 'ward' || frame.kind === 'reshare')
        this.#later({
          kind: 'result',
          command: frame.id,
          ok: false,
          code,
          message: messageOf(error),
        })
    }
  }

  async #act(frame: Instruction): Promise<void> {
    switch (frame.kind) {
      case 'document':
        if (await this.documents.take(frame))
          await this.network.use(this.documents.peers?.peers ?? [])
        return
      case 'ward':
        this.#checkErrand(frame)
        return await this.#ward(frame)
      case 'reshare':
        this.#checkErrand(frame)
        return await this.#reshare(frame)
      case 'command':
        return await this.#command(frame)
      default:
        return frame satisfies never
    }
  }

  async #command(frame: Frame<'command'>): Promise<void> {
    const { enrolment, commands } = this.#deps
    checkCommand(createPublicKey(enrolment.commandKey), this.#self, frame)
    await commands.take(frame)
  }

  #checkErrand(frame: Frame<'ward' | 'reshare'>): void {
    checkErrand(createPublicKey(this.#deps.enrolment.commandKey), this.#self, frame)
  }

  /** To whom orders for this node are addressed. */
  get #self(): Addressee {
    const { keys, enrolment } = this.#deps
    return { cluster: enrolment.cluster, node: keys.node }
  }

  async #ward({ action, ward, identity, epoch, id }: Frame<'ward'>): Promise<void> {
    const { keys, enrolment } = this.#deps
    if (action === 'retire') {
      await this.wards.retire(ward, epoch)
      await this.#note('retired', ward, epoch)
      return this.#later({ kind: 'result', command: id, ok: true })
    }
    const key = { ...(await this.wards.prepare(ward, identity, epoch)) }
    await this.#note('prepared', ward, epoch)
    const body = wardKeyBody(enrolment.cluster, keys.node, ward, epoch, key)
    const signature = signBody(keys.identity, 'ward-key', body)
    this.#later({ kind: 'ward-key', ward, epoch, key, signature })
    this.#later({ kind: 'result', command: id, ok: true })
  }

  /** The log of releases also says when a ward's key came and went. */
  async #note(event: 'prepared' | 'retired', ward: string, epoch: number): Promise<void> {
    await this.#guarding?.note({ event, ward, epoch, source: 'coordinator', code: '' })
  }

  async #reshare({ kind: _, signature: __, ...set }: Frame<'reshare'>): Promise<void> {
    this.#checkSet(set)
    const taken = await this.#deps.tell({ kind: 'ordered', set })
    if (!taken && declines(this.#deps.state(), set))
      throw agentFault('agent.node_busy', 'something else is under way; order it again later')
  }

  /** Every key must be signed by the guardian it is said to be of, for this node and epoch. */
  #checkSet({ guardians, epoch, threshold }: GuardianSet): void {
    const { keys, enrolment } = this.#deps
    for (const { node, identity, key, signature } of guardians) {
      const publicKey = createPublicKey(identity)
      const body = wardKeyBody(enrolment.cluster, node, keys.node, epoch, key)
      if (keyId(publicKey) === node && isSigned(publicKey, 'ward-key', body, signature)) continue
      throw agentFault('agent.guardian_key_invalid', `guardian ${node} has not signed its key`)
    }
    const distinct = new Set(guardians.map(({ node }) => node)).size
    if (distinct === guardians.length && threshold <= distinct) return
    throw agentFault('agent.guardian_key_invalid', 'the guardians are too few or not distinct')
  }

  /** Sends without waiting for the acknowledgement, which may take as long as the network is down. */
  #later(frame: AgentFrame): void {
    this.deliver(frame).catch(() => undefined) // the session has ended; it will be asked for again
  }
}

/** This node as its guardians know it. */
export function wardIdentityOf(
  keys: NodeKeys,
  enrolment: Enrolment,
  tunnelTo?: WardIdentity['tunnelTo'],
): WardIdentity {
  return {
    ...(tunnelTo === undefined ? {} : { tunnelTo }),
    node: keys.node,
    identity: keys.identity,
    own: { key: keys.identity, certificate: enrolment.certificate },
    authority: enrolment.authority,
  }
}
