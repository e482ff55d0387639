import type { KeyObject } from 'node:crypto'
import { type Clock, isFault } from '@holdfast/base'
import { type ErrandFrame, signErrand } from '@holdfast/link'
import {
  askedOf,
  type Errand,
  forgetKey,
  keepKey,
  keyErrand,
  openErrands,
  orderErrand,
  problemOf,
  refuse,
  refuseOrder,
  type WardKey,
} from './agents-errand-rows.ts'
import type { Result } from './commands.ts'
import type { Store } from './store.ts'
import { Together } from './together.ts'

// The coordinator's own errands to agents: making and destroying keys for wards, and moving a ward to
// its new guardians. What is to be said follows from the rows of `ward_keys` and `reshares` alone; it
// is said by whichever instance holds the agent, again after every reconnection and from time to time,
// until the answer is here. The same errand is the same bytes every time.

export interface ErrandsOptions {
  store: Store
  clock: Clock
  /** This instance's name, as it stands beside the nodes it holds. */
  instance: string
  cluster: () => string
  /** The command key; undefined while the coordinator is sealed, which orders nothing. */
  signer: () => Promise<{ key: KeyObject; cluster: string } | undefined>
  /** Sends to an agent of this instance. @throws Fault link.session_closed, node.not_connected */
  deliver: (node: string, frame: ErrandFrame) => Promise<void>
  isHeld: (node: string) => boolean
  /** An answer has changed what is to be done next. */
  onMoved: () => void
  onError: (error: unknown) => void
}

/** An agent that took an errand in and has not answered is told again. */
const repeatAfter = 15_000

export class Errands {
  readonly #options: ErrandsOptions
  /** By node: when each errand was sent in this session. */
  readonly #sent = new Map<string, Map<string, number>>()
  readonly #together: Together

  constructor(options: ErrandsOptions) {
    this.#options = options
    this.#together = new Together(options.store)
  }

  /** Tells the agents of this instance what is new to them. */
  async send(): Promise<void> {
    const { store, instance, clock, isHeld } = this.#options
    const now = clock.now()
    const open = await openErrands(store.read, instance)
    const still = new Map<string, Map<string, number>>()
    const due: Errand[] = []
    for (const { node, frame } of open) {
      if (!isHeld(node)) continue
      const at = this.#sent.get(node)?.get(frame.id) ?? Number.NEGATIVE_INFINITY
      const again = now - at >= repeatAfter
      still.set(node, (still.get(node) ?? new Map()).set(frame.id, again ? now : at))
      if (again) due.push({ node, frame })
    }
    this.#sent.clear()
    for (const [node, errands] of still) this.#sent.set(node, errands)
    await this.#sendAll(due)
  }

  /** To read the key is written down: only who has something to say reads it. */
  async #sendAll(due: readonly Errand[]): Promise<void> {
    if (due.length === 0) return
    try {
      const signer = await this.#options.signer()
      if (signer === undefined) return this.#unsent(due)
      const { key, cluster } = signer
      for (const { node, frame } of due)
        this.#deliver(node, signErrand(key, { cluster, node }, frame))
    } catch (error) {
      this.#unsent(due)
      throw error
    }
  }

  /** They are said at the next look. */
  #unsent(due: readonly Errand[]): void {
    for (const { node, frame } of due) this.#sent.get(node)?.delete(frame.id)
  }

  /** The node's session has ended: a new one is told everything again. */
  forget(node: string): void {
    this.#sent.delete(node)
  }

  /** Takes in a key that a guardian made. A wrong one counts as a refusal. */
  async takeKey(guardian: string, frame: WardKey): Promise<void> {
    const { store, clock, cluster } = this.#options
    const asked = await askedOf(store.read, guardian, frame)
    if (asked === undefined) return // asked for by nobody, or long ago
    const problem = problemOf(asked.identity, cluster(), guardian, frame)
    await this.#together.add(async (work) => {
      if (problem === undefined) return await keepKey(work, guardian, frame)
      await refuse(work, clock, { ...frame, guardian, code: 'reshare.key_invalid', text: problem })
    })
    this.#options.onMoved()
  }

  /** Takes in the answer to an errand; false when it answers something else. */
  async takeResult(node: string, result: Result): Promise<boolean> {
    const { store, clock } = this.#options
    const key = await keyErrand(store.read, node, result.command)
    const order =
      key === undefined ? await orderErrand(store.read, node, result.command) : undefined
    if (key === undefined && order === undefined) return false
    const { code = 'agent.internal', message: text = '' } = result
    if (key !== undefined && !result.ok && key.state === 'asked')
      await this.#together.add((work) => refuse(work, clock, { ...key, code, text }))
    else if (key !== undefined && result.ok && key.state === 'retiring')
      await this.#together.add((work) => forgetKey(work, result.command))
    else if (order !== undefined && !result.ok)
      await this.#together.add((work) => refuseOrder(work, clock, order, { code, text }))
    this.#options.onMoved()
    return true
  }

  #deliver(node: string, frame: ErrandFrame): void {
    this.#options.deliver(node, frame).catch((error: unknown) => {
      this.#sent.get(node)?.delete(frame.id)
      const away = isFault(error, 'link.session_closed') || isFault(error, 'node.not_connected')
      if (!away) this.#options.onError(error)
    })
  }
}
