import { createPublicKey } from 'node:crypto'
import { type Clock, codeOf, ensureDirectory, listDirectory, systemClock } from '@holdfast/base'
import { sql } from 'kysely'
import { record } from './audit.ts'
import { type BackupReport, verifyBackup } from './backup.ts'
import { type BackupRow, type BackupTable, readBundle } from './backup-format.ts'
import { writeMarker } from './claim.ts'
import { coordinatorFault } from './faults.ts'
import { pinIdentity } from './identity.ts'
import { openStore, type Store, type StoreLocation, type Work } from './store.ts'

export interface RestoreOptions {
  /** Must be empty. */
  directory: string
  store: StoreLocation
  /** The identity that the bundle must be signed by, when that is known. */
  pinned?: string
  clock?: Clock
}

const rowsAtOnce = 100

/**
 * Puts a backup into an empty host. It starts there in recovery, under a temporary identity, until
 * its holders (or an automatic way that is within reach) open it: the cluster's own identity key is
 * inside the sealed state. The marker is written first, so that no crash leaves something "fresh".
 * @throws Fault coordinator.not_empty, coordinator.backup_damaged, coordinator.backup_foreign
 */
export async function restoreBackup(text: string, options: RestoreOptions): Promise<BackupReport> {
  const { directory, pinned, clock = systemClock } = options
  const report = verifyBackup(text, pinned)
  const { head, rows } = readBundle(text)
  await requireEmpty(directory, report.cluster, head.identity)
  await ensureDirectory(directory)
  await writeMarker(directory, report.cluster)
  await pinIdentity(directory, createPublicKey(head.identity))
  await using store = await openStore(options.store)
  await store.write(async (work) => {
    await requireUnused(work, store)
    for (const [table, list] of rows) await insertAll(work, table, list)
    await forgetPasses(work)
    await record(work, clock, {
      actor: 'coordinator',
      action: 'backup.restored',
      subject: report.cluster,
      outcome: 'done',
      data: { generation: report.generation, madeAt: head.at },
    })
  })
  return report
}

/** What was revoked since the backup was made must not let anybody in again; new ones are soon made. */
async function forgetPasses(work: Work): Promise<void> {
  await work.deleteFrom('tokens').execute()
  await work.updateTable('invites').set({ revoked: 1 }).execute()
}

/** Files that a restore itself leaves when it is interrupted do not count. */
async function requireEmpty(directory: string, cluster: string, identity: string): Promise<void> {
  const own = ['initialised', 'identity.pub', 'state.db', 'state.db-wal', 'state.db-shm']
  const names = await listDirectory(directory).catch((error: unknown) => {
    if (codeOf((error as Error).cause) === 'ENOENT') return []
    throw error
  })
  const inTheWay = names.filter((name) => !own.includes(name))
  if (inTheWay.length === 0) return
  throw coordinatorFault(
    'coordinator.not_empty',
    `${directory} is not empty (${inTheWay.slice(0, 3).join(', ')}), and ${cluster} will not be restored over it`,
    { hint: `take another directory; the backup's identity is\n${identity}` },
  )
}

async function requireUnused(work: Work, store: Store): Promise<void> {
  for (const table of ['header', 'audit'] as const) {
    const { rows } = await sql`select 1 from ${sql.table(table)} limit 1`.execute(work)
    if (rows.length > 0)
      throw coordinatorFault('coordinator.not_empty', `the ${store.engine} store is not empty`, {
        hint: 'restore into a new database',
      })
  }
}

async function insertAll(work: Work, table: BackupTable, rows: BackupRow[]): Promise<void> {
  for (let at = 0; at < rows.length; at += rowsAtOnce) {
    const some = rows.slice(at, at + rowsAtOnce)
    await work
      .insertInto(table)
      .values(some as never) // rows of a signed bundle; the engine refuses what does not fit
      .execute()
  }
}
