import type { Held, HeldSessions } from './agents-held.ts'
import { documentsAfter, documentsFor, newestVersion } from './nodes-documents.ts'
import type { Store } from './store.ts'

/** Milliseconds that clocks of instances are never apart: versions are not below the time. */
const clocksApart = 10 * 60_000

/** Sends signed documents to the agents of this instance, whichever instance has published them. */
export class DocumentFeed {
  readonly #store: Store
  readonly #held: HeldSessions
  /** The highest version that has been sent. */
  #newest = 0

  constructor(store: Store, held: HeldSessions) {
    this.#store = store
    this.#held = held
  }

  /** What is there already is sent to each session when it begins. */
  async begin(): Promise<void> {
    this.#newest = await newestVersion(this.#store.read)
  }

  /** Sends what is new to whom it is for. */
  async send(): Promise<void> {
    const { read } = this.#store
    const newest = await newestVersion(read)
    if (newest === this.#newest) return
    // The document of a removed node may have been the newest; another instance, whose clock is behind,
    // may have published with a lower version since. Agents take no document twice.
    const after = newest < this.#newest ? newest - clocksApart : this.#newest
    for (const { node, frame } of await documentsAfter(read, after))
      for (const held of this.#receivers(node)) this.#held.send(held, frame)
    this.#newest = newest
  }

  /** Sends one session everything that its node should have. */
  async sendAll(held: Held): Promise<void> {
    for (const { frame } of await documentsFor(this.#store.read, held.session.node))
      this.#held.send(held, frame)
  }

  #receivers(node: string | undefined): Held[] {
    if (node === undefined) return this.#held.list().map(([, held]) => held)
    return [this.#held.get(node)].filter((held) => held !== undefined)
  }
}
