import { createHash } from 'node:crypto'
import { canonicalJson, isFault, parseJson } from '@holdfast/base'
import { z } from 'zod'

// The lines of the release log, apart from files. One JSON line for each event, each with the digest of
// the one before. A file of the log is a segment; the first line of all but the first one says what it
// goes on from, and `carried` lines after it say where each ward was last answered.

const entrySchema = z.strictObject({
  n: z.number().int(),
  /** Milliseconds since 1970 by this guardian's clock, for people only. */
  at: z.number(),
  event: z.enum([
    'released',
    'probed',
    'refused',
    'held',
    'moved',
    'torn',
    'prepared',
    'retired',
    'continued',
    'damaged',
    'carried',
  ]),
  ward: z.string(),
  epoch: z.number().int(),
  source: z.string(),
  code: z.string(),
  previous: z.string(),
  digest: z.string(),
})
export type ReleaseEntry = z.infer<typeof entrySchema>
export type ReleaseEvent = Pick<ReleaseEntry, 'event' | 'ward' | 'epoch' | 'source' | 'code'>

/** What a line follows: the number and the digest of the one before. */
export type LastEntry = Pick<ReleaseEntry, 'n' | 'digest'>

/** What the very first line of a log follows. */
export const genesis = 'holdfast release-log 1'

export interface Segment {
  /** Those that hang together, in their order. */
  entries: ReleaseEntry[]
  /** What a crash left at the end, to be closed by a `torn` line; all lines of it. */
  torn?: string
  /** Whether the torn end stops within a line. */
  open: boolean
  /** The line, from 1, at which it stops to hang together. */
  damage?: number
}

/** Reads one file of the log that follows a segment ending with entry number `newest`, 0 for none. */
export function readSegment(text: string, newest: number): Segment {
  const lines = text.split('\n')
  const rest = lines.pop() ?? ''
  const entries: ReleaseEntry[] = []
  let cut: string[] = []
  for (const [index, line] of lines.entries()) {
    const entry = parsed(line)
    if (entry === undefined) {
      cut.push(line)
      continue
    }
    const closes = cut.length === 0 || (entry.event === 'torn' && entry.code === digestOf(all(cut)))
    if (!closes || !follows(entry, entries.at(-1), newest))
      return { entries, open: false, damage: index + 1 }
    entries.push(entry)
    cut = []
  }
  const open = rest !== ''
  if (open) cut.push(rest)
  return { entries, open, ...(cut.length === 0 ? {} : { torn: all(cut) }) }
}

const all = (lines: readonly string[]) => lines.join('\n')

function follows(entry: ReleaseEntry, last: LastEntry | undefined, newest: number): boolean {
  if (last !== undefined) return entry.n === last.n + 1 && entry.previous === last.digest
  const first = entry.n === 1 && entry.previous === genesis
  return entry.n > newest && (first || isOpening(entry))
}

/** True for the lines that a new segment begins with. */
export function isOpening({ event }: Pick<ReleaseEntry, 'event'>): boolean {
  return event === 'continued' || event === 'damaged'
}

/** The line for an event, with its newline. */
export function entryOf(event: ReleaseEvent, last: LastEntry, at: number) {
  const entry = { ...event, n: last.n + 1, at, previous: last.digest }
  const whole: ReleaseEntry = { ...entry, digest: digestOf(canonicalJson(entry)) }
  return { entry: whole, line: `${canonicalJson(whole)}\n` }
}

function parsed(line: string): ReleaseEntry | undefined {
  try {
    const { digest, ...entry } = entrySchema.parse(parseJson(line, 'an entry', 10_000))
    return digestOf(canonicalJson(entry)) === digest ? { ...entry, digest } : undefined
  } catch (error) {
    if (isFault(error) || error instanceof z.ZodError) return undefined
    throw error
  }
}

export function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}
