import type { Need, Reshare } from './reshare-plan.ts'

// Whose plans are looked at in a round, and in which order. A plan that can only wait takes nobody's
// turn: what is free goes to the next one that can begin. To look at a plan is to choose guardians
// among the whole fleet, so a round looks at so many at most; where more wait, those who were looked
// at in vain stand back until all others had their look.

export class ReshareTurns {
  readonly #looks: number
  /** Wards that were looked at in vain. */
  readonly #passed = new Set<string>()

  /** `looks`: plans that one round may look at. */
  constructor(looks: number) {
    this.#looks = looks
  }

  /** Planned wards in the order in which they may begin; `due` has the most urgent first. */
  of(due: readonly Need[], reshares: readonly Reshare[]): string[] {
    const planned = new Set(reshares.filter(isPlanned).map(({ ward }) => ward))
    const waiting = due.filter(({ ward }) => planned.has(ward))
    if (waiting.length <= this.#looks) this.#passed.clear()
    // Only better company is waited for without need; whatever else is due never stands back.
    const stands = ({ ward, cause }: Need) => cause === 'join' && this.#passed.has(ward)
    const front = waiting.filter((need) => !stands(need))
    const order = [...front, ...waiting.filter(stands)]
    if (front.length <= this.#looks) this.#passed.clear()
    return order.slice(0, this.#looks).map(({ ward }) => ward)
  }

  /** It was looked at and can only wait. */
  pass(ward: string): void {
    this.#passed.add(ward)
  }
}

/** True for a re-share that has not begun. */
export function isPlanned({ state }: Reshare): boolean {
  return state === 'planned'
}
