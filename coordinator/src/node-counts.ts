import type { Clock } from '@holdfast/base'
import type { Store } from './store.ts'

export interface NodeCounts {
  total: number
  connected: number
  locked: number
}

/** Five heartbeats of twenty seconds: who was silent for longer is not connected. */
const silence = 100_000
/** Anybody may ask for the status, and counting reads every node. */
const fresh = 2_000

/** Counts nodes, at most every two seconds; several callers wait for one count. */
export class NodeCounter {
  readonly #store: Store
  readonly #clock: Clock
  #counted = Number.NEGATIVE_INFINITY
  #counts: Promise<NodeCounts> | undefined

  constructor(store: Store, clock: Clock) {
    this.#store = store
    this.#clock = clock
  }

  async count(): Promise<NodeCounts> {
    const now = this.#clock.now()
    // A clock that was set back does not make a count fresh until it is there again.
    const isFresh = now >= this.#counted && now - this.#counted < fresh
    if (this.#counts !== undefined && isFresh) return await this.#counts
    this.#counted = now
    this.#counts = countNodes(this.#store, now)
    this.#counts.catch(() => {
      this.#counts = undefined
    })
    return await this.#counts
  }
}

async function countNodes({ read }: Store, now: number): Promise<NodeCounts> {
  const rows = await read
    .selectFrom('nodes')
    .select(['phase', ({ fn }) => fn.countAll<number>().as('count')])
    .groupBy('phase')
    .execute()
  const { connected } = await read
    .selectFrom('nodes')
    .select(({ fn }) => fn.countAll<number>().as('connected'))
    .where('instance', 'is not', null)
    .where('heard_at', '>', now - silence)
    .executeTakeFirstOrThrow()
  const numbers = rows.map(({ phase, count }) => [phase, Number(count)] as const)
  return {
    total: numbers.reduce((sum, [, count]) => sum + count, 0),
    connected: Number(connected),
    locked: numbers.find(([phase]) => phase === 'locked')?.[1] ?? 0,
  }
}
