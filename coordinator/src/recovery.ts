import { Secret } from '@holdfast/base'
import { encryptJwe } from '@holdfast/crypto'
import { createPins, holderRequests, open, rehearse } from '@holdfast/seal'
import { compactDecrypt } from 'jose'
import { record } from './audit.ts'
import {
  type AnswerHandler,
  type Ceremony,
  type CeremonyDeps,
  ceremonyHolders,
  closeCeremony,
  keptShares,
  openCeremony,
  stateDigest,
  stateOf,
} from './ceremonies.ts'
import { notOpen, supersede } from './ceremony-end.ts'
import { ceremonyFault } from './ceremony-faults.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import type { Identity } from './identity.ts'

// Recovery: k of n holders give the data key back. Shares wait in the store encrypted to the identity
// key, so any instance can finish, and whoever has only the database learns nothing.

/** The holders' sealed data key of a generation: `active` for recovery, `prepared` for a change. */
export async function holdersWay(
  coordinator: Coordinator,
  state: 'active' | 'prepared',
): Promise<string> {
  const row = await coordinator.store.read
    .selectFrom('ways')
    .select('sealed')
    .where('kind', '=', 'holders')
    .where('state', '=', state)
    .executeTakeFirst()
  if (row !== undefined) return row.sealed
  throw coordinatorFault('coordinator.way_unknown', 'no holders have been set up for this state', {
    hint: 'open it by another way, then set a manifest that names holders',
  })
}

/** Begins the recovery of what lies in the store, or finds it. */
export async function openRecovery(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  actor: string,
): Promise<Ceremony> {
  const { header, headerDigest } = coordinator
  if (header?.holders === undefined || headerDigest === undefined) {
    throw coordinatorFault(
      'coordinator.way_unknown',
      'the manifest of this cluster names no holders',
    )
  }
  const sealed = await holdersWay(coordinator, 'active')
  const wanted = {
    kind: 'recovery' as const,
    digest: stateDigest(headerDigest, [{ sealed }]),
    generation: header.generation,
    threshold: header.holders.threshold,
    holders: ceremonyHolders(header),
  }
  return await openCeremony(deps, wanted, actor)
}

/** Checks shares alone against the sealed data key that they belong to. */
export function shareHandler(identity: Identity, sealed: string): AnswerHandler {
  return {
    needsShare: true,
    check: async (_ceremony, holder, contentKey) => {
      const pins = createPins({
        holders: {
          answer: async ({ name }) =>
            name === holder ? { contentKey: contentKey.clone() } : undefined,
        },
      })
      const { children = [] } = await rehearse(pins, sealed)
      const own = children.find(({ label }) => label === holder)
      if (own?.state === 'proven') return
      throw ceremonyFault(
        'ceremony.share_wrong',
        `the share of ${holder} is not right for this state`,
        {
          hint: 'unwrap the share of this very request; an earlier one is of another generation',
        },
      )
    },
    keep: (contentKey) =>
      encryptJwe({ alg: 'ECDH-ES', typ: 'holdfast-kept-share' }, identity.publicKey, contentKey),
  }
}

/** Combines the kept shares of a met ceremony. The caller wipes what it gets. */
export async function combine(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  ceremony: Ceremony,
  sealed: string,
): Promise<Secret> {
  const kept = await keptShares(deps, ceremony.id)
  const answers = new Map<string, Secret>()
  for (const { holder, sealed: share } of kept) {
    const { plaintext } = await compactDecrypt(share, coordinator.identity.key)
    answers.set(holder, Secret.take(plaintext))
  }
  try {
    const pins = createPins({
      holders: {
        answer: async ({ name }) => {
          const contentKey = answers.get(name)
          return contentKey === undefined ? undefined : { contentKey: contentKey.clone() }
        },
      },
    })
    return await open(pins, sealed)
  } finally {
    for (const contentKey of answers.values()) contentKey[Symbol.dispose]()
  }
}

/**
 * Opens the sealed state once enough holders have answered, and ends the ceremony.
 * @throws Fault coordinator.data_key_sealed when it is sealed by command meanwhile, ceremony.not_open
 *   when it was before, or the ceremony was ended
 */
export async function finishRecovery(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  ceremony: Ceremony,
): Promise<void> {
  const { seals, sealedAt = 0 } = coordinator
  const state = await stateOf(deps.store.read, ceremony.id)
  // Whoever was the first has finished it, and since then it may have been sealed.
  const follows = state === 'done' && ceremony.created > sealedAt
  if (state !== 'met' && !follows) throw notOpen(state)
  using plaintext = await combine(
    coordinator,
    deps,
    ceremony,
    await holdersWay(coordinator, 'active'),
  )
  await coordinator.openWith(plaintext, seals)
  await deps.store.write(async (work) => {
    // Several may finish it, each for itself; it is told once, and what was cancelled stays cancelled.
    if ((await stateOf(work, ceremony.id)) !== 'met') return
    await closeCeremony(work, ceremony.id, 'done', deps)
    const data = {
      holders: ceremony.answered.map(({ holder }) => holder),
      generation: ceremony.generation,
    }
    await record(work, deps.clock, {
      actor: 'coordinator',
      action: 'coordinator.recovered',
      subject: ceremony.id,
      outcome: 'done',
      data,
    })
  })
}

/**
 * Somebody seals this instance. A recovery that is under way ends with it: only one that begins from now
 * on may open it again.
 */
export async function sealByCommand(
  coordinator: Coordinator,
  { store, clock }: CeremonyDeps,
  by: { actor: string; subject: string },
): Promise<void> {
  await store.write(async (work) => {
    await record(work, clock, { ...by, action: 'coordinator.seal', outcome: 'done' })
    await supersede(work, clock, 'recovery')
  })
  coordinator.seal()
}

/** A holder's wrapped share: public, and to be had at any time. */
export function wrappedShare(
  sealed: string,
  holder: string,
): { wrapped: string; kid: string; algorithm: string } {
  const request = holderRequests(sealed).find(({ name }) => name === holder)
  if (request === undefined)
    throw ceremonyFault('ceremony.holder_unknown', `there is no share of ${holder}`)
  return {
    wrapped: request.wrapped.toString('base64url'),
    kid: request.kid,
    algorithm: request.alg,
  }
}
