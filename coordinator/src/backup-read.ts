import { createHash, createPublicKey, type Hash, type KeyObject, verify } from 'node:crypto'
import { keyId } from '@holdfast/link'
import {
  type BackupHead,
  type BackupRow,
  type BackupTable,
  backupTables,
  closesSegment,
  damaged,
  incomplete,
  largestLine,
  mixed,
  readHeadLine,
  readRowLine,
  readSegmentLine,
  signedText,
} from './backup-format.ts'
import { coordinatorFault } from './faults.ts'

// Reading a bundle with one segment in memory. What comes out has been checked as far as it can be by
// then: of version 2, everything but that the rest will come, too; of version 1, nothing before the
// end. So nobody keeps what was read before the end has been reached without a fault.

export interface BackupReader {
  /** First of all: what the bundle says of itself, and the key that signed this. */
  head(head: BackupHead, key: KeyObject): void
  row(table: BackupTable, row: BackupRow): Promise<void> | void
}

/** Bytes; segments of ours have a quarter of a MiB and the rest of one row. */
const largestSegment = 2 * largestLine

/**
 * Reads a bundle and hands its bytes on, a segment at a time, once they have been checked.
 * @param pinned the identity it must be signed by, when that is known
 * @throws Fault coordinator.backup_damaged, .backup_incomplete, .backup_mixed, .backup_foreign
 */
export async function* readBundle(
  source: AsyncIterable<Uint8Array>,
  reader: BackupReader,
  pinned?: string,
): AsyncGenerator<Buffer> {
  let body: WholeBody | Segments | undefined
  for await (const line of linesOf(source)) {
    if (body !== undefined) {
      const checked = await body.take(line)
      if (checked !== undefined) yield checked
      continue
    }
    const { head, signature } = readHeadLine(line)
    const key = signerOf(head, signature, pinned)
    reader.head(head, key)
    const rows = new CountedRows(head, reader)
    body = head.version === 1 ? new WholeBody(head, rows) : new Segments(head, key, rows)
    yield line
  }
  if (body === undefined) throw incomplete('there is nothing in it')
  body.end()
}

/** Lines with their ends, none longer than one may be. @throws Fault when the last is cut off */
async function* linesOf(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let parts: Buffer[] = []
  let size = 0
  for await (const bytes of source) {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      const rest = chunk.subarray(from, end + 1)
      yield parts.length === 0 ? rest : Buffer.concat([...parts, rest])
      parts = []
      size = 0
      from = end + 1
    }
    if (from === chunk.length) continue
    parts.push(chunk.subarray(from))
    size += chunk.length - from
    if (size > largestLine) throw damaged('a line of it is longer than any can be')
  }
  if (parts.length > 0) throw incomplete('its last line has no end')
}

/** The public key that signed the head. @throws Fault coordinator.backup_damaged, .backup_foreign */
function signerOf(head: BackupHead, signature: Buffer, pinned: string | undefined): KeyObject {
  let key: KeyObject
  try {
    key = createPublicKey(head.identity)
    if (!verify('sha256', signedText(head), key, signature)) throw new Error('no match')
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

/** Compares how many rows came with how many the head says. */
class CountedRows {
  readonly #head: BackupHead
  readonly #reader: BackupReader
  readonly #counts = new Map<BackupTable, number>()

  constructor(head: BackupHead, reader: BackupReader) {
    this.#head = head
    this.#reader = reader
  }

  async take(line: Buffer): Promise<void> {
    const [table, row] = readRowLine(line)
    this.#counts.set(table, (this.#counts.get(table) ?? 0) + 1)
    await this.#reader.row(table, row)
  }

  end(): void {
    const wrong = backupTables.find(
      (table) => (this.#counts.get(table) ?? 0) !== (this.#head.rows[table] ?? 0),
    )
    if (wrong !== undefined) throw damaged(`it has not the rows of ${wrong} that its head says`)
  }
}

/** Version 1: one digest for everything after the head. */
class WholeBody {
  readonly #digest: string
  readonly #rows: CountedRows
  readonly #hash: Hash = createHash('sha256')

  constructor({ digest }: { digest: string }, rows: CountedRows) {
    this.#digest = digest
    this.#rows = rows
  }

  async take(line: Buffer): Promise<Buffer> {
    this.#hash.update(line)
    await this.#rows.take(line)
    return line
  }

  end(): void {
    if (this.#hash.digest('base64url') !== this.#digest)
      throw damaged('its rows are not those that were signed')
    this.#rows.end()
  }
}

/** Version 2: a segment's rows are read once its end has shown that they are whole and belong here. */
class Segments {
  readonly #bundle: string
  readonly #key: KeyObject
  readonly #rows: CountedRows
  #lines: Buffer[] = []
  #size = 0
  #before = 0
  #over = false

  constructor({ bundle }: { bundle: string }, key: KeyObject, rows: CountedRows) {
    this.#bundle = bundle
    this.#key = key
    this.#rows = rows
  }

  async take(line: Buffer): Promise<Buffer | undefined> {
    if (this.#over) throw mixed('something follows its last segment')
    if (closesSegment(line)) return await this.#close(line)
    this.#lines.push(line)
    this.#size += line.length
    if (this.#size > largestSegment) throw damaged('a segment of it is larger than any can be')
    return undefined
  }

  async #close(line: Buffer): Promise<Buffer> {
    const { segment, signature } = readSegmentLine(line)
    const number = this.#before + 1
    if (!verify('sha256', signedText(segment), this.#key, signature))
      throw damaged(`the signature of segment ${number} is wrong`)
    if (segment.bundle !== this.#bundle) throw mixed(`segment ${number} is of another backup`)
    if (segment.number !== number)
      throw mixed(`segment ${segment.number} stands where ${number} should`)
    const lines = this.#lines
    const hash = createHash('sha256')
    for (const each of lines) hash.update(each)
    if (hash.digest('base64url') !== segment.digest)
      throw damaged(`the rows of segment ${number} are not those that were signed`)
    this.#lines = []
    this.#size = 0
    this.#before = number
    this.#over = segment.last
    for (const each of lines) await this.#rows.take(each)
    return Buffer.concat([...lines, line])
  }

  end(): void {
    if (!this.#over)
      throw incomplete(`it ends after segment ${this.#before}, which is not the last`)
    this.#rows.end()
  }
}
