import { basename, dirname, join } from 'node:path'
import {
  appendDurable,
  type Fault,
  isFault,
  listDirectory,
  readIfPresent,
  removeDurable,
  renameDurable,
  writeDurable,
} from '@holdfast/base'
import { agentFault } from './faults.ts'
import {
  digestOf,
  entryOf,
  genesis,
  isOpening,
  type LastEntry,
  type ReleaseEntry,
  type ReleaseEvent,
  readSegment,
} from './release-entries.ts'

// The record of everything a guardian was asked for. A line is durable before its answer leaves.
//   PATH            the segment that grows
//   PATH.next       the beginning of the one after it, while segments change
//   PATH.N          closed segments by the number of their last entry; only the newest are kept
//   PATH.damaged-K  what did not hang together; never deleted, never read again
//
// A crash can cut the last line off; the next start closes it with a line that says so. Anything else
// that cannot be read means that somebody, or the disk, has changed it. Guarding goes on all the same,
// with an incident and a new log: no rule is decided by the log except the alarm about a moved ward,
// and many logs may be damaged by the one power cut after which a whole fleet needs its guardians. If
// damage stopped them, then whoever can spoil a file could keep other people's vaults shut.
//
// What is carried into a new segment is where each ward was last answered. The rate rule counts in
// memory by a clock that only goes forward, so that changing segments, a clock at 1970 and a clock set
// back do not touch it.

/** Bytes of one segment beyond what was carried into it. */
const segmentBytes = 8 * 1024 * 1024
/** Closed segments that are kept. */
const segmentsKept = 16
/** Wards whose last address is carried on; the latest ones. */
const mostCarried = 10_000
/** Readings of a log whose segments change meanwhile. */
const mostTries = 10
/** No segment becomes as large; one from before there were segments may be, and is set aside whole. */
const readLimit = 32 * 1024 * 1024

export interface ReleaseLogOptions {
  /** Told when a log was set aside because it did not hang together. */
  onDamage?: (fault: Fault) => void
  segmentBytes?: number
  /** At least 1. */
  segmentsKept?: number
}

type Source = Pick<ReleaseEntry, 'epoch' | 'source'>

export class ReleaseLog {
  readonly #path: string
  readonly #now: () => number
  readonly #options: ReleaseLogOptions
  readonly #sources = new Map<string, Source>()
  #last: LastEntry = { n: 0, digest: genesis }
  /** Bytes beyond what was carried into this segment. */
  #size = 0
  /** False while the files may not be what this object takes them for. */
  #settled = false
  #queue: Promise<void> = Promise.resolve()

  private constructor(path: string, now: () => number, options: ReleaseLogOptions) {
    this.#path = path
    this.#now = now
    this.#options = options
  }

  /** Opens the log, checks the segment that grows, and gives its entries. */
  static async open(
    path: string,
    now: () => number,
    options: ReleaseLogOptions = {},
  ): Promise<{ log: ReleaseLog; entries: readonly ReleaseEntry[] }> {
    const log = new ReleaseLog(path, now, options)
    const entries = await log.#load()
    return { log, entries }
  }

  /** Appends durably, in the order of the calls. */
  async append(event: ReleaseEvent): Promise<void> {
    const turn = this.#queue.then(() => this.#append(event))
    this.#queue = turn.catch(() => undefined)
    await turn
  }

  async #append(event: ReleaseEvent): Promise<void> {
    if (!this.#settled) await this.#load()
    this.#settled = false // what fails from here on may have been written in part
    if (this.#size >= (this.#options.segmentBytes ?? segmentBytes)) {
      const closed = `${basename(this.#path)}.${this.#last.n}`
      await this.#change('continued', closed)
    }
    await this.#write(event)
    this.#settled = true
  }

  async #write(event: ReleaseEvent): Promise<void> {
    const { entry, line } = entryOf(event, this.#last, this.#now())
    await appendDurable(this.#path, line)
    this.#last = entry
    this.#size += Buffer.byteLength(line)
    this.#remember(entry)
  }

  /** Brings the files into order after whatever has happened, and reads the segment that grows. */
  async #load(): Promise<readonly ReleaseEntry[]> {
    await finishChange(this.#path)
    const newest = (await closedSegments(this.#path)).at(-1) ?? 0
    const text = await textOf(this.#path)
    const { entries, torn, open, damage } = readSegment(text ?? '', newest)
    for (const entry of entries) this.#remember(entry)
    this.#last = entries.at(-1) ?? { n: newest, digest: genesis }
    this.#size = Buffer.byteLength(text ?? '') - carriedBytes(text ?? '', entries)
    const lost = entries.length === 0 && torn === undefined && newest > 0
    if (text === undefined || lost || damage !== undefined) {
      await this.#setAside(text === undefined ? tooLarge : atLine(damage))
    } else if (torn !== undefined) {
      if (open) await appendDurable(this.#path, '\n')
      await this.#write({ ...nobody, event: 'torn', code: digestOf(torn) })
    }
    // Said again until something else is in the log: the power may have gone before anybody heard.
    const [first] = entries
    const untouched = entries.every(({ event }) => event === 'damaged' || event === 'carried')
    if (untouched && first !== undefined) this.#announce('did not hang together', first.code)
    await this.#prune()
    this.#settled = true
    return entries
  }

  /** Puts away what cannot be believed, and begins anew with what could be read before the damage. */
  async #setAside(where: string): Promise<void> {
    const isFile = await isThere(this.#path)
    const aside = isFile ? `${basename(this.#path)}.damaged-${await nextDamaged(this.#path)}` : ''
    await this.#change('damaged', aside)
    this.#announce(where, aside)
  }

  #announce(where: string, aside: string): void {
    const place = aside === '' ? 'only its older parts are there' : `it is now ${aside}`
    const text = `${this.#path} ${where}: ${place}, and a new log has begun`
    const hint = 'keep the file, and look at who could write there'
    this.#options.onDamage?.(agentFault('agent.log_damaged', text, { hint }))
  }

  /**
   * Begins a new segment; the old file takes the given name, none when there is no file. Killed at any
   * step, `finishChange` undoes or completes it.
   */
  async #change(event: 'continued' | 'damaged', name: string): Promise<void> {
    let last = this.#last
    let text = ''
    const add = (each: ReleaseEvent) => {
      const { entry, line } = entryOf(each, last, this.#now())
      last = entry
      text += line
    }
    add({ ...nobody, event, code: name })
    for (const [ward, source] of this.#sources) add({ event: 'carried', ward, ...source, code: '' })
    await writeDurable(nextOf(this.#path), text)
    if (name !== '') await renameDurable(this.#path, join(dirname(this.#path), name))
    await renameDurable(nextOf(this.#path), this.#path)
    this.#last = last
    this.#size = 0
    await this.#prune()
  }

  #remember({ event, ward, epoch, source }: ReleaseEntry): void {
    if (event !== 'released' && event !== 'carried') return
    this.#sources.delete(ward) // the latest are at the end
    this.#sources.set(ward, { epoch, source })
    const [oldest] = this.#sources.size > mostCarried ? this.#sources.keys() : []
    if (oldest !== undefined) this.#sources.delete(oldest)
  }

  async #prune(): Promise<void> {
    const closed = await closedSegments(this.#path)
    const old = closed.slice(0, -(this.#options.segmentsKept ?? segmentsKept))
    for (const n of old) await removeDurable(`${this.#path}.${n}`)
  }
}

const nobody = { ward: '', epoch: 0, source: '', code: '' }

/**
 * Checks every segment that is there, and that each goes on from the one before; all their entries.
 * @throws Fault agent.log_damaged
 */
export async function verifyReleaseLog(path: string): Promise<readonly ReleaseEntry[]> {
  const all: ReleaseEntry[] = []
  for await (const entries of checkedSegments(path)) for (const entry of entries) all.push(entry)
  return all
}

/**
 * As `verifyReleaseLog`, and a guardian may go on with the log meanwhile; how many entries there are.
 * @throws Fault agent.log_damaged, base.file_unreadable
 */
export async function countReleases(path: string): Promise<number> {
  for (let tries = 1; ; tries += 1) {
    const before = await closedSegments(path)
    try {
      let count = 0
      for await (const entries of checkedSegments(path)) count += entries.length
      return count
    } catch (error) {
      // Segments that change while they are read may seem not to fit.
      if (tries === mostTries || `${before}` === `${await closedSegments(path)}`) throw error
    }
  }
}

/** The entries of each segment, the oldest one first; a segment at a time is in memory. */
async function* checkedSegments(path: string): AsyncGenerator<readonly ReleaseEntry[]> {
  let before: ReleaseEntry | undefined
  for (const n of [...(await closedSegments(path)), undefined]) {
    const file = n === undefined ? path : `${path}.${n}`
    // Before the file is read: afterwards the change may be over, and the file there.
    const changing = n === undefined && (await isChanging(path))
    const text = await textOf(file)
    const { entries, torn, damage } = readSegment(text ?? '', before?.n ?? 0)
    const [first] = entries
    const goesOn = first?.n === (before?.n ?? 0) + 1 && first.previous === before?.digest
    const wrong = before !== undefined && first?.event === 'continued' && !goesOn
    // A closed segment has the number of its last entry in its name, and nothing after it.
    const cut = n !== undefined && (entries.at(-1)?.n !== n || torn !== undefined)
    const line = damage ?? (wrong ? 1 : cut ? entries.length + 1 : undefined)
    // Where there are closed segments, the one that grows begins with a line about them.
    const empty = first === undefined && torn === undefined && before !== undefined
    const lost = n === undefined && empty && !changing
    // The newest closed segment is never removed: what goes on from one has it beside it.
    const alone = n === undefined && before === undefined && first?.event === 'continued'
    if (text === undefined || alone || line !== undefined || lost) {
      const what = text === undefined ? tooLarge : alone ? orphaned : atLine(line)
      throw agentFault('agent.log_damaged', `${file} ${what}`, {
        hint: 'somebody has changed it: keep the file, and look at who could write there',
      })
    }
    before = entries.at(-1) ?? before
    yield entries
  }
}

/** The log's file in a node's directory. */
export const releaseLogName = 'releases.log'

/** True for the log and all that has become of it: evidence that outlives a node's identity. */
export function isReleaseLog(name: string): boolean {
  return name === releaseLogName || name.startsWith(`${releaseLogName}.`)
}

/** A change of segments that was interrupted is undone while the old file has its name, else completed. */
async function finishChange(path: string): Promise<void> {
  if (!(await isThere(nextOf(path)))) return
  if (await isThere(path)) await removeDurable(nextOf(path))
  else await renameDurable(nextOf(path), path)
}

/** True between the two renames of a change of segments, also of one that was cut off there. */
async function isChanging(path: string): Promise<boolean> {
  const names = await listDirectory(dirname(path))
  return names.includes(basename(nextOf(path))) && !names.includes(basename(path))
}

const nextOf = (path: string) => `${path}.next`

/** Numbers of the closed segments, ascending. */
async function closedSegments(path: string): Promise<number[]> {
  return (await endingsOf(path, /^(\d{1,15})$/)).sort((a, b) => a - b)
}

async function nextDamaged(path: string): Promise<number> {
  return Math.max(0, ...(await endingsOf(path, /^damaged-(\d{1,9})$/))) + 1
}

async function endingsOf(path: string, form: RegExp): Promise<number[]> {
  const start = `${basename(path)}.`
  return (await listDirectory(dirname(path)))
    .filter((name) => name.startsWith(start))
    .flatMap((name) => form.exec(name.slice(start.length))?.[1] ?? [])
    .map(Number)
}

async function isThere(path: string): Promise<boolean> {
  return (await listDirectory(dirname(path))).includes(basename(path))
}

/** Bytes of the lines that a segment was begun with. */
function carriedBytes(text: string, entries: readonly ReleaseEntry[]): number {
  let end = 0
  for (const entry of entries) {
    if (!isOpening(entry) && entry.event !== 'carried') break
    end = text.indexOf('\n', end) + 1
  }
  return Buffer.byteLength(text.slice(0, end))
}

/** The text, empty when there is none; undefined when it is too large. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return (await readIfPresent(path, readLimit))?.toString('utf8') ?? ''
  } catch (error) {
    if (isFault(error, 'base.file_too_large')) return undefined
    throw error
  }
}

const tooLarge = 'is too large to be read'
const orphaned = 'goes on from a segment that is gone'

function atLine(line: number | undefined): string {
  return line === undefined ? 'is gone or empty' : `does not hang together at line ${line}`
}
