import { type Clock, type Fault, isFault, type JsonObject, messageOf } from '@holdfast/base'
import { drillsFault } from './faults.ts'

/** One thing that happened in a drill. Facts stand beside `at` and `step`; never a secret. */
export interface Evidence extends JsonObject {
  /** ISO 8601, UTC. */
  at: string
  /** Milliseconds since the drill began. */
  after: number
  step: string
  /** Whether what the step claims was found to be so; absent for a plain note. */
  proven?: boolean
}

/**
 * What a drill did and saw, in order. A drill claims something only through `proves` and
 * `refuses`: each looks, records what it saw, and ends the drill when it is otherwise.
 */
export class Timeline {
  readonly evidence: Evidence[] = []
  readonly #clock: Clock
  readonly #began: number
  readonly #signal: AbortSignal
  readonly #onEvent: (evidence: Evidence) => void

  constructor(
    clock: Clock,
    signal: AbortSignal,
    onEvent: (evidence: Evidence) => void = () => undefined,
  ) {
    this.#clock = clock
    this.#signal = signal
    this.#began = clock.now()
    this.#onEvent = onEvent
  }

  /** Records what was done. Throws the signal's reason when the drill is to stop: it goes no further. */
  note(step: string, facts: JsonObject = {}): void {
    this.#signal.throwIfAborted()
    const now = this.#clock.now()
    const at = new Date(now).toISOString()
    const evidence = { at, after: now - this.#began, step, ...facts }
    this.evidence.push(evidence)
    this.#onEvent(evidence)
  }

  /** Records a claim and whether it holds. @throws Fault drills.check_failed when it does not */
  proves(step: string, holds: boolean, facts: JsonObject = {}): void {
    this.note(step, { proven: holds, ...facts })
    if (!holds) throw drillsFault('drills.check_failed', `not so: ${step}`, { details: facts })
  }

  /**
   * Records that something is refused, with the fault's code. The result of an action that
   * succeeds is not looked at, so it must not be a secret that needs wiping.
   * @throws Fault drills.not_refused when it succeeds or fails for another reason
   */
  async refuses(
    step: string,
    codes: readonly string[],
    action: () => Promise<unknown>,
  ): Promise<Fault> {
    let thrown: unknown
    try {
      await action()
    } catch (error) {
      thrown = error
    }
    const fault = isFault(thrown) ? thrown : undefined
    const code = fault?.code
    const expected = fault !== undefined && codes.includes(fault.code)
    this.note(step, { proven: expected, refused: code ?? 'no' })
    if (expected) return fault
    const instead = thrown === undefined ? 'it was not refused' : messageOf(thrown)
    throw drillsFault('drills.not_refused', `not so: ${step}: ${instead}`, {
      cause: thrown,
      details: { expected: codes, code },
    })
  }
}
