import type { Clock } from '@holdfast/base'
import {
  type Hello,
  isWitnessed,
  SessionRefused,
  signGeneration,
  type Welcome,
  type Witness,
} from '@holdfast/link'
import { recordAlone } from './audit.ts'
import { openCommands } from './commands-delivery.ts'
import type { Coordinator } from './coordinator.ts'

// Whether an agent comes in. Its key was proven by TLS; what counts here is its record: without one a
// certificate is worth nothing, which is how certificates are revoked. A sealed coordinator lets
// agents in, too, so that they know where it is and can say what they have seen.

export class Admission {
  readonly #coordinator: Coordinator
  readonly #clock: Clock
  readonly #heartbeatSeconds: number
  #witness: Witness | undefined
  /** When each node's unproven claim was last written down. */
  readonly #claims = new Map<string, number>()

  constructor(coordinator: Coordinator, clock: Clock, heartbeatSeconds: number) {
    this.#coordinator = coordinator
    this.#clock = clock
    this.#heartbeatSeconds = heartbeatSeconds
  }

  /** @throws SessionRefused */
  async admit(node: string, hello: Hello): Promise<Welcome> {
    const { header, store } = this.#coordinator
    if (header === undefined) throw new SessionRefused(4503, 'this coordinator has no state')
    const row = await store.read
      .selectFrom('nodes')
      .select(['phase'])
      .where('node', '=', node)
      .executeTakeFirst()
    if (row === undefined) throw new SessionRefused(4404, 'no record of this node')
    if ((row.phase === 'left' || row.phase === 'wiped') && !(await this.#owesResult(node)))
      throw new SessionRefused(4410, `this node is ${row.phase}`)
    await this.#checkWitness(node, hello)
    return {
      kind: 'welcome',
      ...this.witness(),
      state: this.#coordinator.state === 'running' ? 'running' : 'recovery',
      time: this.#clock.now(),
      heartbeatSeconds: this.#heartbeatSeconds,
    }
  }

  /**
   * Its report may have come when its receipt had not: the line was lost in between, and the receipt is
   * what people wait for.
   */
  async #owesResult(node: string): Promise<boolean> {
    const { store } = this.#coordinator
    return (await openCommands(store.read, this.#clock.now(), [node])).length > 0
  }

  /** The state's generation with its proof, signed once per generation. */
  witness(): Witness {
    const { identity, header } = this.#coordinator
    const { cluster = '', generation = 0 } = header ?? {}
    if (this.#witness?.cluster !== cluster || this.#witness.generation !== generation)
      this.#witness = signGeneration(identity.key, cluster, generation)
    return this.#witness
  }

  /** A node that has seen a later generation means that this state is an old one. */
  async #checkWitness(node: string, { witnessed }: Hello): Promise<void> {
    const { header, identity } = this.#coordinator
    if (witnessed === undefined || witnessed.cluster !== header?.cluster) return
    const data = { witnessed: witnessed.generation, generation: header.generation }
    if (!isWitnessed(identity.pinned, witnessed)) return await this.#unproven(node, data)
    if (!this.#isBehind(witnessed)) return
    // Another instance may have made that generation a moment ago, and this one has not looked yet.
    await this.#coordinator.refresh()
    if (!this.#isBehind(witnessed)) return
    this.#coordinator.setWitness('ahead', witnessed.generation)
    await this.#audit(node, 'coordinator.rollback_suspected', 'failed', data)
  }

  #isBehind({ generation }: Witness): boolean {
    const { header, reason } = this.#coordinator
    return generation > (header?.generation ?? 0) && reason !== 'rollback_suspected'
  }

  /** Once an hour: whoever comes again and again must not fill the log. */
  async #unproven(node: string, data: Record<string, unknown>): Promise<void> {
    const now = this.#clock.now()
    if (now - (this.#claims.get(node) ?? Number.NEGATIVE_INFINITY) < 3_600_000) return
    this.#claims.set(node, now)
    await this.#audit(node, 'node.witness_unproven', 'refused', data)
  }

  async #audit(
    node: string,
    action: string,
    outcome: 'refused' | 'failed',
    data: Record<string, unknown>,
  ): Promise<void> {
    const event = { actor: `node:${node}`, action, subject: node, outcome, data }
    await recordAlone(this.#coordinator.store, this.#clock, event)
  }
}
