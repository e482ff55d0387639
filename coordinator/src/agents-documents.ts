import type { Clock } from '@holdfast/base'
import type { DocumentFrame } from '@holdfast/link'
import type { Held, HeldSessions } from './agents-held.ts'
import { documentsAfter, documentsFor, newestVersion } from './nodes-documents.ts'
import type { Store } from './store.ts'

// Signed documents for the agents of this instance, whichever instance has published them. What is for
// all may have a million characters, and there may be ten thousand agents: only so much of it is on its
// way at once.

/** Milliseconds that clocks of instances are never apart: versions are not below the time. */
const clocksApart = 10 * 60_000
/** Characters of one document that wait in the sockets of all agents together, and at least for how many. */
const onTheWay = 64 * 1024 * 1024
const fewest = 16
/** Milliseconds after which who has not taken it keeps nobody else waiting. */
const patience = 5_000

export interface DocumentFeedOptions {
  store: Store
  clock: Clock
  held: HeldSessions
  onError: (error: unknown) => void
}

export class DocumentFeed {
  readonly #options: DocumentFeedOptions
  /** The highest version that has been sent. */
  #newest = 0
  /** By name, the version for all that was sent last. */
  readonly #latest = new Map<DocumentFrame['name'], number>()

  constructor(options: DocumentFeedOptions) {
    this.#options = options
  }

  /** What is there already is sent to each session when it begins. */
  async begin(): Promise<void> {
    this.#newest = await newestVersion(this.#options.store.read)
  }

  /** Sends what is new to whom it is for; what is for all and large goes on after this has resolved. */
  async send(): Promise<void> {
    const { store, held, onError } = this.#options
    const newest = await newestVersion(store.read)
    if (newest === this.#newest) return
    // The document of a removed node may have been the newest; another instance, whose clock is behind,
    // may have published with a lower version since. Agents take no document twice.
    const after = newest < this.#newest ? newest - clocksApart : this.#newest
    for (const { node, frame } of await documentsAfter(store.read, after)) {
      if (node === undefined) this.sendToAll(frame).catch(onError)
      const receiver = node === undefined ? undefined : held.get(node)
      if (receiver !== undefined) held.send(receiver, frame)
    }
    this.#newest = newest
  }

  /** Sends one session everything that its node should have. */
  async sendAll(session: Held): Promise<void> {
    const { store, held } = this.#options
    for (const { frame } of await documentsFor(store.read, session.session.node))
      held.send(session, frame)
  }

  /** Resolves when all that are here have been sent it, or a later version is being sent. */
  async sendToAll(frame: DocumentFrame): Promise<void> {
    this.#latest.set(frame.name, frame.version)
    const waiting = this.#options.held.list().map(([, held]) => held)
    const atOnce = Math.max(fewest, Math.floor(onTheWay / (frame.body.length + 1)))
    const some = async () => {
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
        if (this.#latest.get(frame.name) !== frame.version) return
        await this.#taken(next, frame)
      }
    }
    await Promise.all(Array.from({ length: Math.min(atOnce, waiting.length) }, some))
  }

  /** Sends to one; best effort, because whoever is not there any more gets it when it comes back. */
  async #taken({ session }: Held, frame: DocumentFrame): Promise<void> {
    const over = new AbortController()
    const sent = session.send(frame).catch(() => undefined)
    const late = this.#options.clock.sleep(patience, over.signal).catch(() => undefined)
    await Promise.race([sent, late])
    over.abort()
  }
}
