import type { RecoveryEvent } from './listener.ts'

/** Counters of one listening process since its start. */
export interface Gauges {
  connections: number
  accepted: number
  refused: number
  limited: number
  overloaded: number
}

const batchTime = 20
const batchSize = 512

/** Hands events on in batches: a message per recovery would cost as much as a P-256 recovery. */
export class EventBatcher implements Disposable {
  readonly #send: (events: RecoveryEvent[]) => void
  #events: RecoveryEvent[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(send: (events: RecoveryEvent[]) => void) {
    this.#send = send
  }

  add(event: RecoveryEvent): void {
    this.#events.push(event)
    if (this.#events.length >= batchSize) this.flush()
    else this.#timer ??= setTimeout(() => this.flush(), batchTime)
  }

  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#events.length === 0) return
    const events = this.#events
    this.#events = []
    this.#send(events)
  }

  [Symbol.dispose](): void {
    this.flush()
  }
}
