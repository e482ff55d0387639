import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { ensureDirectory, writeDurable } from '@holdfast/base'
import { record } from './audit.ts'
import { makeBackup } from './backup.ts'
import { backupTables } from './backup-format.ts'
import { type Ceremony, type CeremonyDeps, ceremonyHolders, openCeremony } from './ceremonies.ts'
import { readMarker } from './claim.ts'
import type { Coordinator } from './coordinator.ts'
import { dismissalAction, dismissalData } from './dismissal-record.ts'
import { coordinatorFault } from './faults.ts'
import type { Tables } from './tables.ts'

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

/** Begins the holders' ceremony. @throws Fault coordinator.not_in_this_state, .way_unknown */
export async function openDismissal(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  actor: string,
): Promise<Ceremony> {
  coordinator.require('recovery')
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
 * Afterwards the coordinator is new and waits to be claimed.
 * @returns the path of the archive
 */
export async function dismiss(
  coordinator: Coordinator,
  actor: string,
  approvedBy: readonly string[],
): Promise<string> {
  const { directory, store, identity, clock, header } = coordinator
  const cluster = header?.cluster ?? (await readMarker(directory)) ?? ''
  const { bundle, digest } = await makeBackup(coordinator)
  const path = join(directory, 'archive', `${cluster}-${clock.now()}.backup`)
  await ensureDirectory(join(directory, 'archive'))
  await writeDurable(path, bundle)
  await store.write(async (work) => {
    for (const table of [...backupTables, ...passing])
      if (table !== 'audit') await work.deleteFrom(table).execute()
    await record(work, clock, {
      actor,
      action: dismissalAction,
      subject: cluster,
      outcome: 'done',
      data: { ...dismissalData(cluster, digest, identity.key), approvedBy },
    })
  })
  await coordinator.refresh()
  return path
}
