import type { FleetProgress } from './fleet.ts'

/** Counts the steps of a start and tells of each. */
export class Steps {
  readonly #total: number
  readonly #onProgress: (progress: FleetProgress) => void
  #done = 0

  constructor(total: number, onProgress: (progress: FleetProgress) => void = () => undefined) {
    this.#total = total
    this.#onProgress = onProgress
  }

  finish(step: string): void {
    this.#done += 1
    this.#onProgress({ step, done: this.#done, total: this.#total })
  }
}
