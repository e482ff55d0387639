import type { Clock } from '@holdfast/base'
import type { Held, HeldSessions } from './agents-held.ts'
import type { AgentLedger } from './agents-ledger.ts'
import type { Store } from './store.ts'

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

  constructor(options: PresenceOptions) {
    this.#options = options
  }

  /** Writes down who was heard since the last time, and lets go of nodes that are here no more. */
  async writeHeard(): Promise<void> {
    const heard = this.#options.held
      .list()
      .filter(([, { session, written }]) => session.heardAt > written)
    for (let start = 0; start < heard.length; start += batch) {
      const part = heard.slice(start, start + batch)
      const ours = await this.#note(part.map(([node]) => node))
      for (const [node, held] of part) {
        if (ours.has(node)) held.written = held.session.heardAt
        else await this.#lost(node)
      }
    }
  }

  /** Says that these were heard now; those that this instance holds in the store, too, are returned. */
  async #note(nodes: readonly string[]): Promise<Set<string>> {
    const { store, clock, instance } = this.#options
    const known = await store.write((work) =>
      work
        .updateTable('nodes')
        .set({ heard_at: clock.now() })
        .where('node', 'in', nodes)
        .where('instance', '=', instance)
        .returning('node')
        .execute(),
    )
    return new Set(known.map(({ node }) => node))
  }

  /** Another instance holds the node, or nobody knows it any more. */
  async #lost(node: string): Promise<void> {
    const { store, instance, ledger } = this.#options
    const row = await store.read
      .selectFrom('nodes')
      .select('instance')
      .where('node', '=', node)
      .executeTakeFirst()
    const held: Held | undefined = this.#options.held.get(node)
    if (held === undefined || row?.instance === instance) return
    if (row === undefined) return held.session.close(4410, 'the node was removed')
    // Not written down yet, or given up by mistake: claim it again.
    if (row.instance === null) return ledger.note(node)
    if (await held.session.isAlive(3_000)) this.#options.onTwin(node, `instance ${row.instance}`)
    held.session.close(4409, 'another instance has a later session')
  }
}
