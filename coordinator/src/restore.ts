import { createHash } from 'node:crypto'
import { type Clock, ensureDirectory, listDirectory, systemClock } from '@holdfast/base'
import { sql } from 'kysely'
import { record } from './audit.ts'
import {
  BackupCheck,
  type BackupReport,
  type BackupSource,
  type CheckOptions,
} from './backup-check.ts'
import { type BackupRow, type BackupTable, damaged, rowsAtOnce } from './backup-format.ts'
import { readBundle } from './backup-read.ts'
import { readMarker, writeMarker } from './claim.ts'
import { coordinatorFault } from './faults.ts'
import { pinIdentity } from './identity.ts'
import { openStore, type Store, type StoreLocation, type Work } from './store.ts'

export interface RestoreOptions extends CheckOptions {
  /** Must be empty. */
  directory: string
  store: StoreLocation
  clock?: Clock
}

/**
 * Puts a backup into an empty host. It starts there in recovery, under a temporary identity, until
 * its holders (or an automatic way that is within reach) open it: the cluster's own identity key is
 * inside the sealed state. The bundle is read twice: nothing is touched before all of it was checked.
 * The marker is written first, so that no crash leaves something "fresh"; the rows come in one
 * transaction.
 * @throws Fault coordinator.not_empty and those of verifyBackup
 */
export async function restoreBackup(
  source: BackupSource,
  options: RestoreOptions,
): Promise<BackupReport> {
  const { directory, pinned, progress, clock = systemClock } = options
  const twice = (before: 0 | 1) => (rows: number, of: number) =>
    progress?.(before * of + rows, 2 * of)
  const check = new BackupCheck({ pinned, progress: twice(0) })
  for await (const _segment of check.pass(source()));
  const report = check.report()
  await requireEmpty(directory, report)
  await ensureDirectory(directory)
  await writeMarker(directory, report.cluster)
  await pinIdentity(directory, check.signer())
  await using store = await openStore(options.store)
  await store.write(async (work) => {
    await requireUnused(work, store)
    await insertAll(work, source(), report, twice(1))
    await forgetPasses(work)
    await record(work, clock, {
      actor: 'coordinator',
      action: 'backup.restored',
      subject: report.cluster,
      outcome: 'done',
      data: { generation: report.generation, madeAt: report.at },
    })
  })
  return report
}

/** What was revoked since the backup was made must not let anybody in again; new ones are soon made. */
async function forgetPasses(work: Work): Promise<void> {
  await work.deleteFrom('tokens').execute()
  await work.updateTable('invites').set({ revoked: 1 }).execute()
}

/** What an interrupted restore leaves does not count, nor what a coordinator adds that was started then. */
const own = [
  ...['initialised', 'identity.pub', 'identity-temporary.pem'],
  ...['state.db', 'state.db-wal', 'state.db-shm'],
]

async function requireEmpty(directory: string, { cluster, identity }: BackupReport): Promise<void> {
  const marker = await readMarker(directory)
  const names = (await listDirectory(directory)).filter((name) => !own.includes(name))
  const inTheWay = marker === undefined || marker === cluster ? names : [`of ${marker}`, ...names]
  if (inTheWay.length === 0) return
  throw coordinatorFault(
    'coordinator.not_empty',
    `${directory} is not empty (${inTheWay.slice(0, 3).join(', ')}), and ${cluster} will not be restored over it`,
    { hint: `take another directory; the identity of the backup is ${identity}` },
  )
}

async function requireUnused(work: Work, store: Store): Promise<void> {
  for (const table of ['header', 'audit'] as const) {
    const { rows } = await sql`select 1 from ${sql.table(table)} limit 1`.execute(work)
    if (rows.length > 0)
      throw coordinatorFault('coordinator.not_empty', `the ${store.engine} store is not empty`, {
        hint: 'if an earlier restore into it was interrupted, it is complete: holdfast coordinator serve; otherwise restore into a new database',
      })
  }
}

/** @throws Fault coordinator.backup_damaged when it is not the bundle that was checked */
async function insertAll(
  work: Work,
  chunks: AsyncIterable<Uint8Array>,
  report: BackupReport,
  progress: (rows: number, ofRows: number) => void,
): Promise<void> {
  const ofRows = Object.values(report.rows).reduce((sum, rows) => sum + rows, 0)
  const digest = createHash('sha256')
  let some: BackupRow[] = []
  let of: BackupTable | undefined
  let inserted = 0
  const insert = async () => {
    if (of === undefined || some.length === 0) return
    const rows = some as never // rows of a signed bundle; the engine refuses what does not fit
    await work.insertInto(of).values(rows).execute()
    inserted += some.length
    some = []
  }
  const row = async (table: BackupTable, each: BackupRow) => {
    if (table !== of || some.length >= rowsAtOnce(table)) await insert()
    of = table
    some.push(each)
  }
  for await (const bytes of readBundle(chunks, { head: () => undefined, row })) {
    digest.update(bytes)
    progress(inserted, ofRows)
  }
  await insert()
  if (digest.digest('base64url') !== report.digest)
    throw damaged('it was changed while it was being restored')
}
