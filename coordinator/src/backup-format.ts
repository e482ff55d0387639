import { createHash } from 'node:crypto'
import { canonicalJson, isObject, parseJson } from '@holdfast/base'
import { digestSchema, idSchema, momentSchema, publicKeySchema } from '@holdfast/protocol'
import { z } from 'zod'
import { coordinatorFault } from './faults.ts'
import type { Tables } from './tables.ts'

// A backup bundle: lines of JSON. The first is the head with the identity's signature over it. Rows
// follow in segments, each closed by a line that the identity signs, too: of which bundle it is, its
// number, the digest of its rows, and whether it is the last. So a bundle is written and read with one
// segment in memory, and no row counts before its segment is known to be whole and in its place.
// Secrets stay encrypted as they are in the store; sessions and ceremonies are of their moment and
// are left out, and so is a generation that is only being prepared.
//
// Version 1 had no segments: its head has the digest of everything after it.

/** Tables in the order in which they are written, each with its primary key, by which it is read. */
export const backupKeys = {
  header: ['id'],
  ways: ['id'],
  secrets: ['name'],
  manifests: ['version'],
  holders: ['name'],
  users: ['name'],
  tokens: ['id'],
  audit: ['sequence'],
  nodes: ['node'],
  invites: ['id'],
  enrolments: ['id'],
  leases: ['address'],
  commands: ['id'],
  documents: ['name'],
  reshares: ['id'],
  ward_keys: ['ward', 'epoch', 'guardian'],
} as const satisfies Partial<Record<keyof Tables, readonly string[]>>
export type BackupTable = keyof typeof backupKeys
export const backupTables = Object.keys(backupKeys) as BackupTable[] // its own keys

/** How many rows are in memory at once: the log's are small; a command's output is a million characters. */
export function rowsAtOnce(table: BackupTable): number {
  return table === 'audit' ? 100 : 16
}

const shared = {
  holdfast: z.literal('coordinator-backup'),
  cluster: z.union([idSchema, z.literal('')]),
  generation: z.number().int().min(0),
  at: momentSchema,
  /** The public key that signs this head. */
  identity: publicKeySchema,
  rows: z.partialRecord(z.enum(backupTables), z.number().int().min(0)),
}
const headSchema = z.discriminatedUnion('version', [
  /** `digest`: SHA-256 of everything after the first line. */
  z.strictObject({ ...shared, version: z.literal(1), digest: digestSchema }),
  /** `bundle`: random, in every segment: those of two bundles do not fit each other. */
  z.strictObject({ ...shared, version: z.literal(2), bundle: idSchema }),
])
export type BackupHead = z.infer<typeof headSchema>

const segmentSchema = z.strictObject({
  holdfast: z.literal('coordinator-backup-segment'),
  bundle: idSchema,
  /** From 1. */
  number: z.number().int().min(1),
  /** SHA-256 of the lines of its rows. */
  digest: digestSchema,
  last: z.boolean(),
})
export type BackupSegment = z.infer<typeof segmentSchema>

const signatureSchema = z.string().max(200)
const headLineSchema = z.strictObject({ head: headSchema, signature: signatureSchema })
const segmentLineSchema = z.strictObject({ segment: segmentSchema, signature: signatureSchema })

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

/** The exact text that is signed of a head or of a segment's end. */
export function signedText(value: BackupHead | BackupSegment): Buffer {
  return Buffer.from(canonicalJson(value), 'utf8')
}

/** The first line of a bundle: its head and the signature over that. */
export function headLine(head: BackupHead, signature: Buffer): string {
  return `${canonicalJson({ head, signature: signature.toString('base64url') })}\n`
}

/** The line that closes a segment. Canonical JSON: it begins with `{"segment":`, a row's does not. */
export function segmentLine(segment: BackupSegment, signature: Buffer): string {
  return `${canonicalJson({ segment, signature: signature.toString('base64url') })}\n`
}

const segmentBegins = Buffer.from('{"segment":')

/** Whether a line closes a segment; otherwise it is a row's. */
export function closesSegment(line: Buffer): boolean {
  return line.subarray(0, segmentBegins.length).equals(segmentBegins)
}

/** Characters; bytes are never fewer. */
export const largestLine = 16 * 1024 * 1024

/** @throws Fault coordinator.backup_damaged */
export function readHeadLine(line: Buffer): { head: BackupHead; signature: Buffer } {
  const value = parsed(line)
  const read = headLineSchema.safeParse(value)
  if (!read.success) {
    const { version } = isObject(value) && isObject(value.head) ? value.head : {}
    const later = typeof version === 'number' && version > 2
    throw damaged(
      later ? `it is of version ${version}, a later one` : 'its first line is not a head',
    )
  }
  const { head } = read.data
  const signature = Buffer.from(read.data.signature, 'base64url')
  // One text per bundle: nothing may be changed that the signature would not notice.
  if (headLine(head, signature) !== line.toString()) throw damaged('its head was altered')
  return { head, signature }
}

/** @throws Fault coordinator.backup_damaged */
export function readSegmentLine(line: Buffer): { segment: BackupSegment; signature: Buffer } {
  const read = segmentLineSchema.safeParse(parsed(line))
  if (!read.success) throw damaged('the end of a segment is none')
  const { segment } = read.data
  const signature = Buffer.from(read.data.signature, 'base64url')
  if (segmentLine(segment, signature) !== line.toString())
    throw damaged('the end of a segment was altered')
  return { segment, signature }
}

/** @throws Fault coordinator.backup_damaged */
export function readRowLine(line: Buffer): [BackupTable, BackupRow] {
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

function parsed(line: Buffer): unknown {
  try {
    return parseJson(line.toString('utf8'), 'a line of the backup', largestLine)
  } catch (cause) {
    throw damaged('a line of it is not JSON', cause)
  }
}

const another = 'take another backup file: holdfast coordinator verify-backup FILE'

export function damaged(reason: string, cause?: unknown): Error {
  return coordinatorFault('coordinator.backup_damaged', `the backup cannot be used: ${reason}`, {
    ...(cause === undefined ? {} : { cause }),
    hint: another,
  })
}

/** The bundle ends before its last segment does. */
export function incomplete(reason: string): Error {
  return coordinatorFault('coordinator.backup_incomplete', `the backup is cut off: ${reason}`, {
    hint: 'copy the file again, or make another: holdfast coordinator backup --out FILE',
  })
}

/** A segment is whole, and yet not the one that belongs here. */
export function mixed(reason: string): Error {
  return coordinatorFault('coordinator.backup_mixed', `the backup was put together: ${reason}`, {
    hint: another,
  })
}
