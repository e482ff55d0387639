import type { Store, Work } from './store.ts'

type Change = (work: Work) => Promise<void>

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
    this.#next ??= this.#begin()
    this.#next.changes.push(change)
    await this.#next.done
  }

  #begin(): { changes: Change[]; done: Promise<void> } {
    const changes: Change[] = []
    const done = this.#last.then(async () => {
      this.#next = undefined
      await this.#store.write(async (work) => {
        for (const change of changes) await change(work)
      })
    })
    this.#last = done.catch(() => undefined)
    return { changes, done }
  }
}
