import { createHash, type Hash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { ensureDirectory, removeDurable, writeDurable } from '@holdfast/base'
import { record } from './audit.ts'
import { makeBackup } from './backup.ts'
import { backupTables } from './backup-format.ts'
import {
  type Ceremony,
  type CeremonyDeps,
  ceremonyHolders,
  openCeremony,
  stateOf,
} from './ceremonies.ts'
import { ceremonyFault } from './ceremony-faults.ts'
import { readMarker } from './claim.ts'
import type { Coordinator } from './coordinator.ts'
import { dismissalAction, dismissalData } from './dismissal-record.ts'
import { coordinatorFault } from './faults.ts'
import type { Store, Work } from './store.ts'
import type { Tables } from './tables.ts'
import { newId } from './ways.ts'

// Giving an old state up: by a quorum of its holders, or by somebody at the machine itself. What is
// replaced is archived first; the audit log stays and goes on; and only the signed entry in it makes
// an instance believe that the empty store is meant.

/** What is of its moment: a backup leaves it out, and giving a state up removes it. */
export const passing = [
  'sessions',
  'ceremonies',
  'answers',
  'attempts',
] as const satisfies readonly (keyof Tables)[]

/**
 * Only the cluster's own identity can sign the archive and the entry that others believe. A host that
 * was restored and never opened has another one, and nothing that its backup has not.
 */
function requireOwnIdentity({ identity, directory }: Coordinator): void {
  if (!identity.temporary) return
  throw coordinatorFault(
    'coordinator.identity_temporary',
    'this state was restored from a backup and not opened since: there is nothing in it to give up',
    {
      hint: `let its holders open it: holdfast coordinator recover; or leave ${directory} and its store, and begin in an empty directory: holdfast coordinator serve`,
    },
  )
}

/**
 * Begins the holders' ceremony.
 * @throws Fault coordinator.not_in_this_state, .identity_temporary, .way_unknown
 */
export async function openDismissal(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  actor: string,
): Promise<Ceremony> {
  coordinator.require('recovery')
  requireOwnIdentity(coordinator)
  const { header, headerDigest } = coordinator
  if (header?.holders === undefined || headerDigest === undefined)
    throw coordinatorFault('coordinator.way_unknown', 'there are no holders who could give it up', {
      hint: 'on its machine: holdfast coordinator console-token, then holdfast coordinator dismiss',
    })
  const wanted = {
    kind: 'dismissal' as const,
    digest: createHash('sha256').update(`dismiss\n${headerDigest}\n`).digest('base64url'),
    generation: header.generation,
    threshold: header.holders.threshold,
    holders: ceremonyHolders(header),
  }
  return await openCeremony(deps, wanted, actor)
}

/**
 * Archives the state and empties the store; the caller has checked that this was authorised.
 * Afterwards the coordinator is new and waits to be claimed. Who comes second, as the answer that met
 * the ceremony and the duty that resumes it may, finds another state and leaves it alone.
 * @param ceremony that has decided it
 * @throws Fault coordinator.identity_temporary; ceremony.not_open when that has been cancelled meanwhile
 */
export async function dismiss(
  coordinator: Coordinator,
  actor: string,
  approvedBy: readonly string[],
  ceremony?: string,
): Promise<void> {
  requireOwnIdentity(coordinator)
  const { directory, store, identity, clock, header } = coordinator
  const given = await digestIn(store.read)
  const cluster = header?.cluster ?? (await readMarker(directory)) ?? ''
  // Two that come at once must not share a file, for the second one removes its own.
  const own = `${cluster}-${clock.now()}-${randomBytes(4).toString('hex')}.backup`
  const path = join(directory, 'archive', own)
  await ensureDirectory(join(directory, 'archive'))
  const hash = createHash('sha256')
  await writeDurable(path, hashed(makeBackup({ store, identity, clock, bundle: newId() }), hash))
  const digest = hash.digest('base64url')
  const end = await store.write(async (work) => {
    if ((await digestIn(work)) !== given) return 'late'
    const decided = ceremony === undefined ? 'met' : await stateOf(work, ceremony)
    if (decided !== 'met') return 'ended'
    for (const table of [...backupTables, ...passing])
      if (table !== 'audit') await work.deleteFrom(table).execute()
    await record(work, clock, {
      actor,
      action: dismissalAction,
      subject: cluster,
      outcome: 'done',
      data: { ...dismissalData(cluster, digest, identity.key), approvedBy },
    })
    return 'dismissed'
  })
  if (end !== 'dismissed') await removeDurable(path)
  if (end === 'ended') throw ceremonyFault('ceremony.not_open', 'the ceremony has ended meanwhile')
  await coordinator.refresh()
}

/** The same parts; their digest is known when the last has been taken. */
async function* hashed(parts: AsyncIterable<string>, hash: Hash): AsyncGenerator<string> {
  for await (const part of parts) {
    hash.update(part)
    yield part
  }
}

/** Which state the store holds; undefined when it holds none. */
async function digestIn(database: Work | Store['read']): Promise<string | undefined> {
  return (await database.selectFrom('header').select('digest').executeTakeFirst())?.digest
}
