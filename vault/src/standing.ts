import type { Inventory, Slot } from './inventory.ts'
import { isSame, type Proof } from './state.ts'

/** How many ways of one sort there are, and how many have been proven. */
export interface Count {
  ways: number
  proven: number
}

/** Whether a volume stands as it should: one automatic and one recovery way in, both proven. */
export interface Standing {
  automatic: Count
  /** Recovery by holders and owner passphrases. */
  recovery: Count
  satisfied: boolean
  /** What is missing, for people. */
  problems: readonly string[]
}

/** Judges the ways in by their last proofs: an untested one counts as missing. Pure. */
export function standingOf(inventory: Inventory, proofs: readonly Proof[]): Standing {
  const automatic = count(inventory.slots, proofs, ['automatic'])
  const recovery = count(inventory.slots, proofs, ['recovery', 'owner'])
  const problems = [
    ...problemsOf('automatic', automatic),
    ...problemsOf('recovery or owner', recovery),
    ...inventory.slots.flatMap(({ keyslot, problem }) =>
      problem === undefined ? [] : [`keyslot ${keyslot}: ${problem}`],
    ),
    ...inventory.orphans.map(({ token, reason }) => `token ${token}: ${reason}`),
    ...inventory.duplicates.map((slots) => `keyslots ${slots.join(', ')} have the same policy`),
  ]
  return { automatic, recovery, satisfied: automatic.proven > 0 && recovery.proven > 0, problems }
}

/** True when the last try of this way in succeeded. */
export function isProven(slot: Slot, proofs: readonly Proof[]): boolean {
  return proofs.some((proof) => isSame(proof, slot) && proof.state === 'proven')
}

function count(
  slots: readonly Slot[],
  proofs: readonly Proof[],
  purposes: readonly Slot['purpose'][],
): Count {
  const ways = slots.filter((slot) => purposes.includes(slot.purpose) && slot.opensData)
  return { ways: ways.length, proven: ways.filter((slot) => isProven(slot, proofs)).length }
}

function problemsOf(what: string, { ways, proven }: Count): string[] {
  if (ways === 0) return [`there is no ${what} way in`]
  return proven === 0 ? [`no ${what} way in has been proven`] : []
}
