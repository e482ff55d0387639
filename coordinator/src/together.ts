import type { Store, Work } from './store.ts'

type Change = (work: Work) => Promise<void>

/** Changes in one transaction: others write between, and one that meets them is done again whole. */
const most = 100

/** What comes while a transaction is under way shares the next one. */
export class Together {
  readonly #store: Store
  #next: { changes: Change[]; done: Promise<void> } | undefined
  #last: Promise<unknown> = Promise.resolve()

  constructor(store: Store) {
    this.#store = store
  }

  /** Resolves when the change is durable. */
  async add(change: Change): Promise<void> {
    if (this.#next === undefined || this.#next.changes.length >= most) this.#next = this.#begin()
    const { changes, done } = this.#next
    changes.push(change)
    await done
  }

  #begin(): { changes: Change[]; done: Promise<void> } {
    const changes: Change[] = []
    const done = this.#last.then(async () => {
      if (this.#next?.changes === changes) this.#next = undefined
      await this.#store.write(async (work) => {
        for (const change of changes) await change(work)
      })
    })
    this.#last = done.catch(() => undefined)
    return { changes, done }
  }
}
