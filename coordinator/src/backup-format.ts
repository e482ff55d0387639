import { createHash } from 'node:crypto'
import { canonicalJson, isObject, parseJson } from '@holdfast/base'
import { digestSchema, idSchema, momentSchema, publicKeySchema } from '@holdfast/protocol'
import { z } from 'zod'
import { coordinatorFault } from './faults.ts'
import type { Tables } from './tables.ts'

// A backup bundle: lines of JSON. The first is the head with the identity's signature over it, the
// others are rows. The head has a digest and a count of the rows, so one signature covers the file.
// Secrets stay encrypted as they are in the store; sessions and ceremonies are of their moment and
// are left out, and so is a generation that is only being prepared.

/** Tables in the order in which they are written. */
export const backupTables = [
  'header',
  'ways',
  'secrets',
  'manifests',
  'holders',
  'users',
  'tokens',
  'audit',
  'nodes',
  'invites',
  'enrolments',
  'leases',
  'commands',
  'documents',
  'reshares',
  'ward_keys',
] as const satisfies readonly (keyof Tables)[]
export type BackupTable = (typeof backupTables)[number]

const headSchema = z.strictObject({
  holdfast: z.literal('coordinator-backup'),
  version: z.literal(1),
  cluster: z.union([idSchema, z.literal('')]),
  generation: z.number().int().min(0),
  at: momentSchema,
  /** The public key that signs this head. */
  identity: publicKeySchema,
  rows: z.partialRecord(z.enum(backupTables), z.number().int().min(0)),
  /** SHA-256 of everything after the first line. */
  digest: digestSchema,
})
export type BackupHead = z.infer<typeof headSchema>

const firstLineSchema = z.strictObject({ head: headSchema, signature: z.string().max(200) })

/** A row as it is in the store; bytes in base64url under `$bytes`. */
export type BackupRow = Record<string, string | number | null | Uint8Array>

/** One line of a bundle: canonical JSON with the table and the row. */
export function rowLine(table: BackupTable, row: BackupRow): string {
  const plain = Object.entries(row).map(([name, value]) => [
    name,
    value instanceof Uint8Array ? { $bytes: Buffer.from(value).toString('base64url') } : value,
  ])
  return `${canonicalJson({ table, row: Object.fromEntries(plain) })}\n`
}

/** SHA-256, base64url. */
export function digestOf(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('base64url')
}

export interface Bundle {
  head: BackupHead
  /** The exact text that is signed. */
  signed: string
  signature: Buffer
  rows: Map<BackupTable, BackupRow[]>
}

/** The first line of a bundle: its head and the signature over that. */
export function firstLine(head: BackupHead, signature: Buffer): string {
  return `${canonicalJson({ head, signature: signature.toString('base64url') })}\n`
}

const largestLine = 16 * 1024 * 1024

/** Reads a bundle's form and checks its digest and counts. @throws Fault coordinator.backup_damaged */
export function readBundle(text: string): Bundle {
  const end = text.indexOf('\n')
  const first = firstLineSchema.safeParse(parsed(text.slice(0, end < 0 ? 0 : end)))
  if (!first.success) throw damaged('its first line is not the head of a backup')
  const { head } = first.data
  const signature = Buffer.from(first.data.signature, 'base64url')
  // One text per bundle: nothing may be changed that the signature would not notice.
  if (firstLine(head, signature) !== text.slice(0, end + 1)) throw damaged('its head was altered')
  const body = text.slice(end + 1)
  if (digestOf(body) !== head.digest) throw damaged('its rows are not those that were signed')
  const rows = new Map<BackupTable, BackupRow[]>(backupTables.map((table) => [table, []]))
  for (const line of body.split('\n').slice(0, -1)) {
    const [table, row] = readRow(line)
    rows.get(table)?.push(row)
  }
  for (const [table, list] of rows)
    if (list.length !== (head.rows[table] ?? 0)) throw damaged(`it lacks rows of ${table}`)
  return { head, signed: canonicalJson(head), signature, rows }
}

function readRow(line: string): [BackupTable, BackupRow] {
  const value = parsed(line)
  const { table, row } = isObject(value) ? value : {}
  const known = backupTables.find((name) => name === table)
  if (known === undefined || !isObject(row)) throw damaged('a line of it is not a row')
  const cells = Object.entries(row).map(([name, cell]) => {
    if (isObject(cell) && typeof cell.$bytes === 'string')
      return [name, Buffer.from(cell.$bytes, 'base64url')]
    if (cell === null || typeof cell === 'string' || typeof cell === 'number') return [name, cell]
    throw damaged(`a cell of ${known} is of no known kind`)
  })
  return [known, Object.fromEntries(cells)]
}

function parsed(line: string): unknown {
  try {
    return parseJson(line, 'a line of the backup', largestLine)
  } catch (cause) {
    throw damaged('a line of it is not JSON', cause)
  }
}

export function damaged(reason: string, cause?: unknown): Error {
  return coordinatorFault('coordinator.backup_damaged', `the backup cannot be used: ${reason}`, {
    ...(cause === undefined ? {} : { cause }),
    hint: 'take another backup file: holdfast coordinator verify-backup FILE',
  })
}
