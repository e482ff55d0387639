import { createHash } from 'node:crypto'
import { record } from './audit.ts'
import {
  type Ceremony,
  type CeremonyDeps,
  ceremonyHolders,
  closeCeremony,
  openCeremony,
  requireMet,
  stateDigest,
} from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import { holdersWay } from './recovery.ts'

// A state that is older than what nodes have seen is not run until the holders accept it. Accepting
// makes a new generation above all that was ever seen, so that every node can follow again and the
// state that was lost can never come back unnoticed.

/** Begins the ceremony, or finds it. @throws Fault coordinator.not_in_this_state, .way_unknown */
export async function openRollback(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  actor: string,
): Promise<Ceremony> {
  const { header, headerDigest, reason, witnessed } = coordinator
  if (reason !== 'rollback_suspected' || header === undefined || headerDigest === undefined)
    throw coordinatorFault('coordinator.not_in_this_state', 'no rollback is suspected')
  if (header.holders === undefined)
    throw coordinatorFault('coordinator.way_unknown', 'there are no holders who could accept it', {
      hint: 'restore the newest backup, or give the state up with the token of the console',
    })
  const state = stateDigest(headerDigest, [{ sealed: await holdersWay(coordinator, 'active') }])
  const wanted = {
    kind: 'rollback' as const,
    digest: createHash('sha256')
      .update(`accept rollback\n${state}\n${witnessed}\n`)
      .digest('base64url'),
    generation: header.generation,
    threshold: header.holders.threshold,
    holders: ceremonyHolders(header),
    detail: { witnessed },
  }
  return await openCeremony(deps, wanted, actor)
}

/** Enough holders have accepted: the state goes on as a generation above all that was seen. */
export async function finishRollback(
  coordinator: Coordinator,
  { clock }: CeremonyDeps,
  ceremony: Ceremony,
): Promise<void> {
  const seen = Number(ceremony.detail.witnessed)
  if (coordinator.witnessed < seen) coordinator.setWitness('ahead', seen)
  // On a restored host the old host's own ways are gone; the holders' new shares are what counts.
  const { holders } = coordinator.header ?? {}
  const { digest, header, dropped } = await coordinator.prepareGeneration(holders, true)
  await coordinator.activateGeneration(digest, async (work) => {
    await requireMet(work, ceremony.id)
    await closeCeremony(work, ceremony.id, 'done')
    await record(work, clock, {
      actor: 'coordinator',
      action: 'coordinator.rollback_accepted',
      subject: ceremony.id,
      outcome: 'done',
      data: {
        holders: ceremony.answered.map(({ holder }) => holder),
        accepted: ceremony.generation,
        witnessed: seen,
        generation: header.generation,
        dropped,
      },
    })
  })
}
