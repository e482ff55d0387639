import { createHash } from 'node:crypto'
import { appendDurable, canonicalJson, isFault, parseJson, readIfPresent } from '@holdfast/base'
import { z } from 'zod'
import { agentFault } from './faults.ts'

// The record of everything a guardian was asked for, one JSON line each, every line with the digest of
// the one before. A line is durable before its answer leaves. A crash can cut the last line off; the
// next start closes it with a line that says so, and nothing else may be unreadable.

const entrySchema = z.strictObject({
  n: z.number().int(),
  /** Milliseconds since 1970 by this guardian's clock, for people only. */
  at: z.number(),
  event: z.enum(['released', 'probed', 'refused', 'held', 'moved', 'torn', 'prepared', 'retired']),
  ward: z.string(),
  epoch: z.number().int(),
  source: z.string(),
  code: z.string(),
  previous: z.string(),
  digest: z.string(),
})
export type ReleaseEntry = z.infer<typeof entrySchema>
export type ReleaseEvent = Pick<ReleaseEntry, 'event' | 'ward' | 'epoch' | 'source' | 'code'>

const sizeLimit = 256 * 1024 * 1024
const genesis = 'holdfast release-log 1'

export class ReleaseLog {
  readonly #path: string
  readonly #now: () => number
  #last: { n: number; digest: string } = { n: 0, digest: genesis }
  #queue: Promise<void> = Promise.resolve()

  private constructor(path: string, now: () => number) {
    this.#path = path
    this.#now = now
  }

  /**
   * Opens the log and checks all of it.
   * @throws Fault agent.log_damaged
   */
  static async open(
    path: string,
    now: () => number,
  ): Promise<{ log: ReleaseLog; entries: readonly ReleaseEntry[] }> {
    const log = new ReleaseLog(path, now)
    const { entries, torn } = readLog(await textOf(path), path)
    const last = entries.at(-1)
    if (last !== undefined) log.#last = last
    if (torn !== undefined) {
      await appendDurable(path, '\n')
      await log.append({ event: 'torn', ward: '', epoch: 0, source: '', code: digestOf(torn) })
    }
    return { log, entries }
  }

  /** Appends durably, in the order of the calls. */
  async append(event: ReleaseEvent): Promise<void> {
    const turn = this.#queue.then(() => this.#append(event))
    this.#queue = turn.catch(() => undefined)
    await turn
  }

  async #append(event: ReleaseEvent): Promise<void> {
    const { n, digest: previous } = this.#last
    const entry = { ...event, n: n + 1, at: this.#now(), previous }
    const digest = digestOf(canonicalJson(entry))
    await appendDurable(this.#path, `${canonicalJson({ ...entry, digest })}\n`)
    this.#last = { n: n + 1, digest }
  }
}

/** Checks a whole log. @throws Fault agent.log_damaged */
export async function verifyReleaseLog(path: string): Promise<readonly ReleaseEntry[]> {
  return readLog(await textOf(path), path).entries
}

async function textOf(path: string): Promise<string> {
  return (await readIfPresent(path, sizeLimit))?.toString('utf8') ?? ''
}

/** Entries in order, and what stands after the last newline. */
function readLog(text: string, path: string): { entries: ReleaseEntry[]; torn?: string } {
  const lines = text.split('\n')
  const rest = lines.pop() ?? ''
  const entries: ReleaseEntry[] = []
  let cut: string | undefined
  for (const [index, line] of lines.entries()) {
    const entry = parsed(line)
    const last = entries.at(-1) ?? { n: 0, digest: genesis }
    const follows = entry?.n === last.n + 1 && entry.previous === last.digest
    const closes = cut === undefined || (entry?.event === 'torn' && entry.code === digestOf(cut))
    if (entry !== undefined && follows && closes) {
      entries.push(entry)
      cut = undefined
    } else if (entry === undefined && cut === undefined) cut = line
    else throw damaged(path, index + 1)
  }
  // A cut line may be the last one when the power went again before it was closed.
  if (cut !== undefined && rest !== '') throw damaged(path, lines.length)
  const torn = cut ?? (rest === '' ? undefined : rest)
  return { entries, ...(torn === undefined ? {} : { torn }) }
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

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}

function damaged(path: string, line: number): Error {
  return agentFault('agent.log_damaged', `${path} does not hang together at line ${line}`, {
    hint: 'somebody has changed it: keep the file, and look at who could write there',
  })
}
