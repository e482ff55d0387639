import type { Clock } from '@holdfast/base'
import type { Held, HeldSessions } from './agents-held.ts'
import type { AgentLedger } from './agents-ledger.ts'
import { drawSession } from './session-numbers.ts'
import type { Store } from './store.ts'
import { Together } from './together.ts'

// Which nodes are here, as the other instances see it.

export interface PresenceOptions {
  store: Store
  clock: Clock
  /** This instance's name, as it stands beside the nodes it holds. */
  instance: string
  held: HeldSessions
  ledger: AgentLedger
  /** Two live agents with one identity; `where` the other one is. */
  onTwin: (node: string, where: string) => void
}

const batch = 500

/** What an instance of this name held before it was killed it does not hold any more. */
export async function forgetHeld(store: Store, instance: string): Promise<void> {
  await store.write((work) =>
    work.updateTable('nodes').set({ instance: null }).where('instance', '=', instance).execute(),
  )
}

export class Presence {
  readonly #options: PresenceOptions
  readonly #together: Together

  constructor(options: PresenceOptions) {
    this.#options = options
    this.#together = new Together(options.store)
  }

  /**
   * Numbers a session that has begun, and writes down that the node is here; false when it was removed
   * or has gone. Sessions that begin together share a commit.
   */
  async claim(held: Held): Promise<boolean> {
    const { clock, instance, ledger } = this.#options
    const { node } = held.session
    let number: number | undefined
    await this.#together.add(async (work) => {
      number = await drawSession(work, node, { instance, now: clock.now() })
    })
    if (number === undefined) {
      held.session.close(4410, 'the node was removed')
      return false
    }
    held.number = number
    if (this.#options.held.get(node) === held) return true
    ledger.note(node, number)
    return false
  }

  /** Writes down who was heard since the last time, and lets go of nodes that are here no more. */
  async writeHeard(): Promise<void> {
    const heard = this.#options.held
      .list()
      .filter(([, { session, number, written }]) => number > 0 && session.heardAt > written)
    const lost: typeof heard = []
    for (let start = 0; start < heard.length; start += batch) {
      const part = heard.slice(start, start + batch)
      const latest = await this.#note(part.map(([node]) => node))
      for (const [node, held] of part) {
        if (latest.get(node) === held.number) held.written = held.session.heardAt
        else lost.push([node, held])
      }
    }
    // All at once and after the others: each may take seconds to find that nobody answers.
    await Promise.all(lost.map(([node, held]) => this.#lost(node, held)))
  }

  /** Says that these were heard now; gives the sessions of those that are here in the store, too. */
  async #note(nodes: readonly string[]): Promise<Map<string, number>> {
    const { store, clock, instance } = this.#options
    const known = await store.write((work) =>
      work
        .updateTable('nodes')
        .set({ heard_at: clock.now() })
        .where('node', 'in', nodes)
        .where('instance', '=', instance)
        .returning(['node', 'session'])
        .execute(),
    )
    return new Map(known.map(({ node, session }) => [node, session]))
  }

  /** The node has a later session, or nobody knows it any more. */
  async #lost(node: string, held: Held): Promise<void> {
    const { store, ledger, onTwin } = this.#options
    const row = await store.read
      .selectFrom('nodes')
      .select(['instance', 'session'])
      .where('node', '=', node)
      .executeTakeFirst()
    if (this.#options.held.get(node) !== held) return
    if (row === undefined) return held.session.close(4410, 'the node was removed')
    // Given up by mistake: it is written down once more.
    if (row.session === held.number) return ledger.note(node, held.number)
    if (await held.session.isAlive(3_000))
      onTwin(node, row.instance === null ? 'elsewhere' : `instance ${row.instance}`)
    held.session.close(4409, 'another instance has a later session')
  }
}
