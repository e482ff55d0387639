import { type Clock, isFault } from '@holdfast/base'
import type { LockedState } from '@holdfast/protocol/locked-state'
import type { OpenEvent } from '@holdfast/seal'
import type { GuardianSet } from './life-state.ts'

/** What the unlock under way has and what it lacks, by guardian, for whoever asks. */
export class UnlockProgress {
  readonly #clock: Clock
  readonly #answered = new Set<string>()
  readonly #missing = new Map<string, string>()
  #attempts = 0
  #lastAttemptAt: number | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A new attempt begins: what was had is asked for again. */
  begin(): void {
    this.#answered.clear()
    this.#missing.clear()
    this.#attempts += 1
    this.#lastAttemptAt = this.#clock.now()
  }

  /** Takes in what one pin did. */
  note({ pin, label, state, fault }: OpenEvent): void {
    if (pin !== 'peer') return
    if (state === 'opened') {
      this.#answered.add(label)
      this.#missing.delete(label)
    } else if (state === 'failed' || state === 'retrying') {
      this.#answered.delete(label)
      this.#missing.set(label, reasonOf(fault))
    }
  }

  /** `set`: the guardians that are being asked. */
  show({ guardians, threshold }: GuardianSet): NonNullable<LockedState['progress']> {
    const missing = guardians.flatMap(({ node: guardian }) => {
      if (this.#answered.has(guardian)) return []
      return [{ guardian, reason: (this.#missing.get(guardian) ?? 'not asked yet').slice(0, 300) }]
    })
    const answered = guardians.map(({ node }) => node).filter((node) => this.#answered.has(node))
    const at = this.#lastAttemptAt === undefined ? {} : { lastAttemptAt: this.#lastAttemptAt }
    return { answered, missing, threshold, attempts: this.#attempts, ...at }
  }
}

function reasonOf(fault: unknown): string {
  return isFault(fault) ? `${fault.code}: ${fault.message}` : 'it did not answer'
}
