import type { Clock } from '@holdfast/base'
import type { CeremonyKind, CeremonyState } from '@holdfast/protocol'
import { record } from './audit.ts'
import { ceremonyFault } from './ceremony-faults.ts'
import type { CeremonyDeps } from './ceremony-record.ts'
import type { Database, Work } from './store.ts'

// How ceremonies end, and how long what was handed in is kept.

/** How long other instances may follow a recovery with the shares that were handed in. */
export const handover = 60 * 1000

/**
 * Ends a ceremony; the shares it kept are removed with the same transaction. Only where there may be
 * several instances do the shares of a finished one stay for a while, so that the others follow.
 */
export async function closeCeremony(
  work: Work,
  id: string,
  state: 'done' | 'cancelled' | 'expired',
  shared?: CeremonyDeps,
): Promise<void> {
  if (shared?.store.engine === 'postgresql' && state === 'done') {
    const expires = shared.clock.now() + handover
    await work.updateTable('ceremonies').set({ state, expires }).where('id', '=', id).execute()
    return
  }
  await work.updateTable('ceremonies').set({ state }).where('id', '=', id).execute()
  await work.updateTable('answers').set({ sealed: '' }).where('ceremony', '=', id).execute()
}

/**
 * Somebody ends a ceremony without effect.
 * @throws Fault ceremony.not_open when it has ended already: what was decided stays decided
 */
export async function cancelCeremony(
  { store, clock }: CeremonyDeps,
  id: string,
  actor: string,
): Promise<void> {
  await store.write(async (work) => {
    const state = await stateOf(work, id)
    if (!isUnderWay(state)) throw notOpen(state)
    await endUnused(work, clock, { id, state: 'cancelled', action: 'ceremony.cancel', actor })
  })
}

/** Closes a ceremony that comes to nothing, and writes down by whom and how. */
export async function endUnused(
  work: Work,
  clock: Clock,
  end: { id: string; state: 'cancelled' | 'expired'; action: string; actor?: string },
): Promise<void> {
  const { id, state, action, actor = 'coordinator' } = end
  await closeCeremony(work, id, state)
  await record(work, clock, { actor, action, subject: id, outcome: 'done' })
}

/** Ends what is under way of a kind, because something else has taken its place; `kept` digests go on. */
export async function supersede(
  work: Work,
  clock: Clock,
  kind: CeremonyKind,
  kept: readonly string[] = [],
): Promise<void> {
  let underWay = work
    .selectFrom('ceremonies')
    .select('id')
    .where('kind', '=', kind)
    .where('state', 'in', ['open', 'met'])
  if (kept.length > 0) underWay = underWay.where('digest', 'not in', kept)
  for (const { id } of await underWay.orderBy('created').orderBy('id').execute())
    await endUnused(work, clock, { id, state: 'cancelled', action: 'ceremony.supersede' })
}

/** The state of a ceremony now; undefined when there is none any more. */
export async function stateOf(
  database: Database | Work,
  id: string,
): Promise<CeremonyState | undefined> {
  const row = await database
    .selectFrom('ceremonies')
    .select('state')
    .where('id', '=', id)
    .executeTakeFirst()
  return row?.state as CeremonyState | undefined // written from that type alone
}

/**
 * What a ceremony has decided is done once, in the transaction that calls this.
 * @throws Fault ceremony.not_open when it was cancelled, has expired, or is done already
 */
export async function requireMet(work: Work, id: string): Promise<void> {
  const state = await stateOf(work, id)
  if (state !== 'met') throw notOpen(state)
}

function isUnderWay(state: CeremonyState | undefined): boolean {
  return state === 'open' || state === 'met'
}

/** Of a ceremony that has ended already, or is gone. */
export function notOpen(state: CeremonyState | undefined): Error {
  return ceremonyFault('ceremony.not_open', `the ceremony is ${state ?? 'gone'}`)
}

/** The kept shares of a ceremony that has been met. */
export async function keptShares(
  { store }: CeremonyDeps,
  id: string,
): Promise<{ holder: string; sealed: string }[]> {
  return await store.read
    .selectFrom('answers')
    .select(['holder', 'sealed'])
    .where('ceremony', '=', id)
    .where('code', '=', 'accepted')
    .execute()
}

/** Ends what has outlived its time; run before each step, so that no timer is needed. */
export async function expire({ store, clock }: CeremonyDeps): Promise<void> {
  const now = clock.now()
  const old = await store.read
    .selectFrom('ceremonies')
    .select('id')
    .where('state', 'in', ['open', 'met'])
    .where('expires', '<', now)
    .orderBy('expires')
    .orderBy('id')
    .execute()
  for (const { id } of old)
    await store.write(async (work) => {
      // Another instance may have finished or ended it since it was looked for.
      if (!isUnderWay(await stateOf(work, id))) return
      await endUnused(work, clock, { id, state: 'expired', action: 'ceremony.expire' })
    })
  const followed = await store.read
    .selectFrom('answers')
    .innerJoin('ceremonies', 'ceremonies.id', 'answers.ceremony')
    .select('answers.ceremony')
    .distinct()
    .where('ceremonies.state', '=', 'done')
    .where('ceremonies.expires', '<', now)
    .where('answers.sealed', '!=', '')
    .execute()
  for (const { ceremony } of followed)
    await store.write((work) =>
      work.updateTable('answers').set({ sealed: '' }).where('ceremony', '=', ceremony).execute(),
    )
}

/** Forgets ceremonies that ended long ago, and challenges that nobody has answered. */
export async function pruneCeremonies(work: Work, before: number): Promise<void> {
  await work
    .deleteFrom('ceremonies')
    .where('state', 'in', ['done', 'cancelled', 'expired', 'proof'])
    .where('expires', '<', before)
    .execute()
  await work
    .deleteFrom('answers')
    .where('ceremony', 'not in', (from) => from.selectFrom('ceremonies').select('id'))
    .execute()
}
