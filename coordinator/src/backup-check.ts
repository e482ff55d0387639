import { createHash, type KeyObject } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { defined, fileFault } from '@holdfast/base'
import { keyId } from '@holdfast/link'
import type { Selectable } from 'kysely'
import { type AuditVerdict, ChainCheck } from './audit.ts'
import { type BackupHead, type BackupRow, type BackupTable, damaged } from './backup-format.ts'
import { type BackupReader, readBundle } from './backup-read.ts'
import { type Header, headerDigest, readHeader } from './header.ts'
import type { AuditTable } from './tables.ts'

/** A bundle, from its beginning, each time it is called. */
export type BackupSource = () => AsyncIterable<Uint8Array>

/** A bundle in a file. Its chunks throw Fault base.file_absent, base.file_unreadable */
export function backupFile(path: string): BackupSource {
  return async function* () {
    try {
      yield* createReadStream(path)
    } catch (cause) {
      throw fileFault(path, cause)
    }
  }
}

export interface BackupReport {
  cluster: string
  name: string
  generation: number
  at: number
  /** The bundle's own id, which the audit entry `backup.make` names; version 1 had none. */
  bundle?: string
  /** base64url SHA-256 of the identity's public key: compare it with what clients pin. */
  identity: string
  holders?: { threshold: number; names: string[] }
  /** Ways to the data key that the bundle carries. */
  ways: { kind: string; label: string }[]
  audit: AuditVerdict
  rows: Partial<Record<BackupTable, number>>
  /** SHA-256 of the whole bundle, base64url. */
  digest: string
}

export interface CheckOptions {
  /** The identity it must be signed by, when that is known. */
  pinned?: string | undefined
  /** Told after every segment how many of its rows have been read. */
  progress?: ((rows: number, ofRows: number) => void) | undefined
}

/**
 * Checks a bundle without any secret: its signatures and counts, the header's own signature, that ways
 * and secrets belong to that header, and the chain of the audit log.
 * @throws Fault coordinator.backup_damaged, .backup_incomplete, .backup_mixed, .backup_foreign,
 *   .header_invalid
 */
export async function verifyBackup(
  source: BackupSource,
  options: CheckOptions = {},
): Promise<BackupReport> {
  const check = new BackupCheck(options)
  for await (const _segment of check.pass(source()));
  return check.report()
}

/**
 * The same for a bundle on its way somewhere: its bytes are handed on, a segment at a time, and instead
 * of their end comes the fault. Who writes them keeps them only when the end has come.
 */
export class BackupCheck implements BackupReader {
  readonly #options: CheckOptions
  readonly #chain = new ChainCheck()
  readonly #ways: BackupRow[] = []
  readonly #generations = new Set<unknown>()
  readonly #digest = createHash('sha256')
  #signed: { head: BackupHead; key: KeyObject } | undefined
  #stored: BackupRow | undefined
  #rows = 0
  #ofRows = 0
  #report: BackupReport | undefined

  constructor(options: CheckOptions = {}) {
    this.#options = options
  }

  head(head: BackupHead, key: KeyObject): void {
    this.#signed = { head, key }
    for (const rows of Object.values(head.rows)) this.#ofRows += rows
  }

  row(table: BackupTable, row: BackupRow): void {
    this.#rows += 1
    if (table === 'audit') this.#chain.take(row as unknown as Selectable<AuditTable>) // hashes decide
    if (table === 'header') {
      if (this.#stored !== undefined) throw damaged('it has more than one header')
      this.#stored = row
    }
    if (table === 'ways') this.#ways.push(row)
    if (table === 'ways' || table === 'secrets') this.#generations.add(row.generation)
  }

  /** @throws Fault as `verifyBackup` does */
  async *pass(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
    for await (const bytes of readBundle(chunks, this, this.#options.pinned)) {
      this.#digest.update(bytes)
      this.#options.progress?.(this.#rows, this.#ofRows)
      yield bytes
    }
    this.#report = this.#judged()
  }

  /** What was found, once everything has passed. */
  report(): BackupReport {
    if (this.#report === undefined) throw unread()
    return this.#report
  }

  /** The public key that signed it, once everything has passed. */
  signer(): KeyObject {
    if (this.#report === undefined || this.#signed === undefined) throw unread()
    return this.#signed.key
  }

  #judged(): BackupReport {
    if (this.#signed === undefined) throw damaged('it has no head')
    const { head, key } = this.#signed
    const { name, cluster, generation, holders } = this.#header(head, key)
    if ([...this.#generations].some((each) => each !== generation))
      throw damaged('it mixes ways or secrets of different generations')
    if (this.#ways.length === 0) throw damaged('it has no way to its data key')
    const audit = this.#chain.verdict
    if (!audit.intact) throw damaged(`its audit log is broken at entry ${audit.firstBroken}`)
    const people =
      holders === undefined
        ? undefined
        : { threshold: holders.threshold, names: holders.list.map((holder) => holder.name) }
    return {
      ...{ cluster, name, generation, at: head.at, identity: keyId(key) },
      ...(head.version === 1 ? {} : { bundle: head.bundle }),
      ...defined({ holders: people }),
      ways: this.#ways
        .map(({ kind, label }) => ({ kind: String(kind), label: String(label) }))
        .sort((one, other) => (one.label < other.label ? -1 : 1)),
      ...{ audit, rows: head.rows, digest: this.#digest.digest('base64url') },
    }
  }

  #header(head: BackupHead, key: KeyObject): Header {
    const stored = this.#stored
    if (stored === undefined) throw damaged('it has no header')
    const body = String(stored.body)
    const header = readHeader({ body, signature: String(stored.signature) }, key)
    if (header.cluster !== head.cluster || header.generation !== head.generation)
      throw damaged('its header is of another cluster or generation than it says')
    if (headerDigest(body) !== stored.digest) throw damaged('the digest of its header is wrong')
    return header
  }
}

function unread(): Error {
  return damaged('it was not read to its end')
}
