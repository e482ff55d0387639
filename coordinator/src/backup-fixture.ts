import { sign } from 'node:crypto'
import { canonicalJson, systemClock } from '@holdfast/base'
import { sql } from 'kysely'
import { makeBackup } from './backup.ts'
import type { BackupSource } from './backup-check.ts'
import {
  type BackupRow,
  type BackupTable,
  backupTables,
  digestOf,
  headLine,
  rowLine,
} from './backup-format.ts'
import type { Coordinator } from './coordinator.ts'
import { newId } from './ways.ts'

/** A whole bundle as bytes, for tests that change some. */
export async function bundleOf({ store, identity, clock }: Coordinator): Promise<Buffer> {
  const parts: string[] = []
  for await (const part of makeBackup({ store, identity, clock, bundle: newId() })) parts.push(part)
  return Buffer.from(parts.join(''))
}

/** Bytes in chunks of this size, as a file or a socket gives them. */
export function chunked(bundle: Uint8Array | string, size = 65_536): BackupSource {
  const bytes = Buffer.from(bundle)
  return async function* () {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  }
}

/** A bundle of version 1, made as the versions of Holdfast made it that knew no other. */
export async function oldBundleOf({ store, identity, header }: Coordinator): Promise<Buffer> {
  const tables = await store.write(async (work) => {
    const read: [BackupTable, BackupRow[]][] = []
    for (const table of backupTables) {
      const { rows } = await sql<BackupRow>`select * from ${sql.table(table)}`.execute(work)
      if (table === 'audit') rows.sort((a, b) => Number(a.sequence) - Number(b.sequence))
      const kept = rows.filter(
        (row) =>
          !(table === 'header' && row.id !== 1) &&
          !(table === 'ways' && row.state === 'prepared') &&
          !(table === 'secrets' && row.name === 'next-data-key'),
      )
      read.push([table, kept])
    }
    return read
  })
  const body = tables.flatMap(([table, rows]) => rows.map((row) => rowLine(table, row))).join('')
  const head = {
    holdfast: 'coordinator-backup' as const,
    version: 1 as const,
    cluster: header?.cluster ?? '',
    generation: header?.generation ?? 0,
    at: systemClock.now(),
    identity: identity.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    rows: Object.fromEntries(tables.map(([table, rows]) => [table, rows.length])),
    digest: digestOf(body),
  }
  const signature = sign('sha256', Buffer.from(canonicalJson(head), 'utf8'), identity.key)
  return Buffer.from(`${headLine(head, signature)}${body}`)
}
