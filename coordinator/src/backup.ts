import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import type { Clock } from '@holdfast/base'
import { canonicalJson } from '@holdfast/base'
import { keyId } from '@holdfast/link'
import { type Selectable, sql } from 'kysely'
import { type AuditVerdict, verifyChain } from './audit.ts'
import {
  type BackupHead,
  type BackupRow,
  type BackupTable,
  type Bundle,
  backupTables,
  damaged,
  digestOf,
  firstLine,
  readBundle,
  rowLine,
} from './backup-format.ts'
import { coordinatorFault } from './faults.ts'
import { headerDigest, readHeader } from './header.ts'
import type { Identity } from './identity.ts'
import type { Store, Work } from './store.ts'
import type { AuditTable } from './tables.ts'

export interface BackupDeps {
  store: Store
  identity: Identity
  clock: Clock
  header: { cluster: string; generation: number } | undefined
}

/** Everything in one consistent reading, signed. Holds no secret in the clear. */
export async function makeBackup(deps: BackupDeps): Promise<{ bundle: string; digest: string }> {
  const { store, identity, clock, header } = deps
  const tables = await store.write(async (work) => {
    const read: [BackupTable, BackupRow[]][] = []
    for (const table of backupTables) read.push([table, await rowsOf(work, table)])
    return read
  })
  const body = tables.flatMap(([table, rows]) => rows.map((row) => rowLine(table, row))).join('')
  const head: BackupHead = {
    holdfast: 'coordinator-backup',
    version: 1,
    cluster: header?.cluster ?? '',
    generation: header?.generation ?? 0,
    at: clock.now(),
    identity: identity.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    rows: Object.fromEntries(tables.map(([table, rows]) => [table, rows.length])),
    digest: digestOf(body),
  }
  const signature = sign('sha256', Buffer.from(canonicalJson(head), 'utf8'), identity.key)
  const bundle = `${firstLine(head, signature)}${body}`
  return { bundle, digest: digestOf(bundle) }
}

/** The rows of a table without what is only being prepared. */
async function rowsOf(work: Work, table: BackupTable): Promise<BackupRow[]> {
  const { rows } = await sql<BackupRow>`select * from ${sql.table(table)}`.execute(work)
  if (table === 'audit') rows.sort((a, b) => Number(a.sequence) - Number(b.sequence))
  return rows.filter(
    (row) =>
      !(table === 'header' && row.id !== 1) &&
      !(table === 'ways' && row.state === 'prepared') &&
      !(table === 'secrets' && row.name === 'next-data-key'),
  )
}

export interface BackupReport {
  cluster: string
  name: string
  generation: number
  at: number
  /** base64url SHA-256 of the identity's public key: compare it with what clients pin. */
  identity: string
  holders?: { threshold: number; names: string[] }
  /** Ways to the data key that the bundle carries. */
  ways: { kind: string; label: string }[]
  audit: AuditVerdict
  rows: Partial<Record<BackupTable, number>>
}

/**
 * Checks a bundle without any secret: its signature, digest and counts, the header's own signature,
 * that ways and secrets belong to that header, and the chain of the audit log.
 * @param pinned the identity it must be signed by, when that is known
 * @throws Fault coordinator.backup_damaged, coordinator.backup_foreign, coordinator.header_invalid
 */
export function verifyBackup(text: string, pinned?: string): BackupReport {
  const bundle = readBundle(text)
  const key = signerOf(bundle, pinned)
  const { head, rows } = bundle
  const [stored] = rows.get('header') ?? []
  if (stored === undefined) throw damaged('it has no header')
  const body = String(stored.body)
  const header = readHeader({ body, signature: String(stored.signature) }, key)
  if (header.cluster !== head.cluster || header.generation !== head.generation)
    throw damaged('its header is of another cluster or generation than it says')
  if (headerDigest(body) !== stored.digest) throw damaged('the digest of its header is wrong')
  const ways = rows.get('ways') ?? []
  const mixed = [...ways, ...(rows.get('secrets') ?? [])].some(
    ({ generation }) => generation !== header.generation,
  )
  if (mixed) throw damaged('it mixes ways or secrets of different generations')
  if (ways.length === 0) throw damaged('it has no way to its data key')
  const audit = verifyChain((rows.get('audit') ?? []) as unknown as Selectable<AuditTable>[]) // hashes decide
  if (!audit.intact) throw damaged(`its audit log is broken at entry ${audit.firstBroken}`)
  const { holders } = header
  return {
    cluster: header.cluster,
    name: header.name,
    generation: header.generation,
    at: head.at,
    identity: keyId(key),
    ...(holders === undefined
      ? {}
      : {
          holders: { threshold: holders.threshold, names: holders.list.map(({ name }) => name) },
        }),
    ways: ways.map(({ kind, label }) => ({ kind: String(kind), label: String(label) })),
    audit,
    rows: head.rows,
  }
}

function signerOf({ head, signed, signature }: Bundle, pinned: string | undefined): KeyObject {
  let key: KeyObject
  try {
    key = createPublicKey(head.identity)
    if (!verify('sha256', Buffer.from(signed, 'utf8'), key, signature)) throw new Error('no match')
  } catch (cause) {
    throw damaged('its signature is wrong', cause)
  }
  if (pinned === undefined || keyId(key) === pinned) return key
  throw coordinatorFault(
    'coordinator.backup_foreign',
    `the backup is signed by ${keyId(key)}, not by the identity that was expected`,
    { hint: 'is it a backup of this very cluster?' },
  )
}
