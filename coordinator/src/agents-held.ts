import type { CoordinatorSession } from '@holdfast/link'
import { nodeFault } from './nodes-faults.ts'

// The sessions that this instance holds, and what it keeps in mind of each. Nothing here is read from
// or written into the store.

export interface Held {
  readonly session: CoordinatorSession
  /** Its number; 0 until it has been drawn. See session-numbers.ts. */
  number: number
  enrolling: boolean
  /** Phase, epoch and guardians as last reported. */
  stand: string
  /** `heardAt` as it was last written down. */
  written: number
}

type Frame = Parameters<CoordinatorSession['deliver']>[0]

export class HeldSessions {
  readonly #held = new Map<string, Held>()

  get count(): number {
    return this.#held.size
  }

  has(node: string): boolean {
    return this.#held.has(node)
  }

  get(node: string): Held | undefined {
    return this.#held.get(node)
  }

  /** All of them, by node, as they are now. */
  list(): [node: string, held: Held][] {
    return [...this.#held]
  }

  add(session: CoordinatorSession): Held {
    const held: Held = {
      session,
      number: 0,
      enrolling: true, // until the store says otherwise
      stand: '',
      written: 0,
    }
    this.#held.set(session.node, held)
    return held
  }

  /** Lets go of a session that has ended; false when it was not held. */
  remove(session: CoordinatorSession): boolean {
    if (this.#held.get(session.node)?.session !== session) return false
    return this.#held.delete(session.node)
  }

  /** Sends a frame and waits until it is taken in. @throws Fault node.not_connected, link.session_closed */
  async deliver(node: string, frame: Frame): Promise<void> {
    const held = this.#held.get(node)
    if (held === undefined)
      throw nodeFault('node.not_connected', `${node} is not connected to this instance`)
    await held.session.deliver(frame)
  }

  /** Best effort: whoever is not there any more gets it when it comes back. */
  send({ session }: Held, frame: Frame): void {
    session.send(frame).catch(() => undefined)
  }
}
