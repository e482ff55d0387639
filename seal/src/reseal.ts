import type { Secret } from '@holdfast/base'
import { sealFault } from './faults.ts'
import { knownKeys, lineageOf, useOf } from './inspect.ts'
import { type OpenOptions, open } from './open.ts'
import type { Pins } from './pin.ts'
import type { Policy } from './policy.ts'
import { type Rehearsal, rehearseRevealing } from './rehearse.ts'
import { seal } from './seal.ts'

export interface ResealOptions extends OpenOptions {
  /**
   * Accept a new policy that could not be proven because it needs people who are not here; never
   * one of which a pin failed. Default false.
   */
  unproven?: boolean
}

/**
 * Changes the policy of a sealed secret: opens the old one, seals under the new policy, proves
 * the new one through its live pins, and only then returns it. The caller keeps the old one until
 * then. Trust in key servers carries over by signatures of keys that the old one stores.
 * @throws Fault seal.proof_failed when the new one does not open
 */
export async function reseal(
  pins: Pins,
  sealed: string,
  policy: Policy,
  options: ResealOptions = {},
): Promise<{ sealed: string; rehearsal: Rehearsal }> {
  using plaintext = await open(pins, sealed, options)
  const lineage = lineageOf(sealed)
  const use = useOf(sealed)
  const fresh = await seal(pins, policy, plaintext, {
    known: knownKeys(sealed),
    ...(use === undefined ? {} : { use }),
    ...(lineage === undefined ? {} : { set: lineage.set, generation: lineage.generation + 1 }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  })
  return { sealed: fresh, rehearsal: await prove(pins, fresh, plaintext, options) }
}

/** Proves that a freshly sealed secret opens to `plaintext` through its live pins. */
export async function prove(
  pins: Pins,
  sealed: string,
  plaintext: Secret,
  options: ResealOptions = {},
): Promise<Rehearsal> {
  // One pass proves every pin and opens, so nobody is asked for the same passphrase twice.
  const { rehearsal, secret } = await rehearseRevealing(pins, sealed, options)
  using again = secret
  if (rehearsal.state === 'proven' && again?.equals(plaintext) === true) return rehearsal
  if (rehearsal.state === 'not_tried' && options.unproven === true) return rehearsal
  const reasons = failures(rehearsal).join('; ')
  throw sealFault(
    'seal.proof_failed',
    `the new way in has not been proven: ${reasons || 'it needs people'}`,
    {
      hint: 'nothing was changed; bring the missing servers or holders back, or change the policy',
      details: { rehearsal },
    },
  )
}

function failures(rehearsal: Rehearsal): string[] {
  const own =
    rehearsal.fault === undefined
      ? []
      : [`${rehearsal.pin} ${rehearsal.label}: ${rehearsal.fault.message}`]
  return [...own, ...(rehearsal.children ?? []).flatMap(failures)]
}
