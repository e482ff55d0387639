import { type Clock, isFault } from '@holdfast/base'
import type { LockedState } from '@holdfast/protocol/locked-state'
import type { OpenEvent } from '@holdfast/seal'
import type { GuardianSet } from './life-state.ts'

type Failed = NonNullable<NonNullable<LockedState['progress']>['failed']>[number]

/** As many as the answer has room for. */
const mostFailed = 32

/** What the unlock under way has and what it lacks, by guardian and by pin, for whoever asks. */
export class UnlockProgress {
  readonly #clock: Clock
  readonly #answered = new Set<string>()
  readonly #missing = new Map<string, string>()
  /** Pins of other kinds that failed, as `pin label`. */
  readonly #failed = new Map<string, Failed>()
  #attempts = 0
  #lastAttemptAt: number | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A new attempt begins: what was had is asked for again. */
  begin(): void {
    this.#answered.clear()
    this.#missing.clear()
    this.#failed.clear()
    this.#attempts += 1
    this.#lastAttemptAt = this.#clock.now()
  }

  /** Takes in what one pin did. */
  note(event: OpenEvent): void {
    const { pin, label, state, fault } = event
    if (pin !== 'peer') {
      this.#noteOther(event)
    } else if (state === 'opened') {
      this.#answered.add(label)
      this.#missing.delete(label)
    } else if (state === 'failed' || state === 'retrying') {
      this.#answered.delete(label)
      this.#missing.set(label, reasonOf(fault))
    }
  }

  #noteOther({ pin, label, state, fault }: OpenEvent): void {
    const key = `${pin} ${label}`
    if (state === 'opened') this.#failed.delete(key)
    // A threshold fails because of the pins in it, which speak for themselves.
    else if (pin !== 'sss' && (state === 'failed' || state === 'retrying'))
      this.#failed.set(key, { pin, label: label.slice(0, 300), reason: reasonOf(fault) })
  }

  /** Pins other than guardians that failed, by their labels, as many as an answer has room for. */
  get failed(): readonly Failed[] {
    const entries = [...this.#failed].sort(([a], [b]) => (a < b ? -1 : 1))
    return entries.slice(0, mostFailed).map(([, failed]) => failed)
  }

  /** `set`: the guardians that are being asked. */
  show({ guardians, threshold }: GuardianSet): NonNullable<LockedState['progress']> {
    const missing = guardians.flatMap(({ node: guardian }) => {
      if (this.#answered.has(guardian)) return []
      return [{ guardian, reason: this.#missing.get(guardian) ?? 'not asked yet' }]
    })
    const answered = guardians.map(({ node }) => node).filter((node) => this.#answered.has(node))
    const at = this.#lastAttemptAt === undefined ? {} : { lastAttemptAt: this.#lastAttemptAt }
    const others = this.failed
    const failed = others.length === 0 ? {} : { failed: [...others] }
    return { answered, missing, threshold, attempts: this.#attempts, ...failed, ...at }
  }
}

function reasonOf(fault: unknown): string {
  return (isFault(fault) ? `${fault.code}: ${fault.message}` : 'it did not answer').slice(0, 300)
}
