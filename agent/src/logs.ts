import { isObject, parseJson, run } from '@holdfast/base'
import { agentFault } from './faults.ts'

// What `logs` reads: the journal where systemd runs, otherwise what this agent has said since its
// start. Bounded in lines and bytes; of too much, the newest is kept.

export interface LogQuery {
  service?: string | undefined
  lines: number
  sinceMinutes?: number | undefined
}

export interface LogLines {
  /** Oldest first, without control characters. */
  lines: readonly string[]
  /** There was more than was asked for, or than is ever given at once. */
  truncated: boolean
}

export interface LogSource {
  read(query: LogQuery, signal: AbortSignal): Promise<LogLines>
}

/** Bytes of journal that are read at once. */
const mostBytes = 1024 * 1024
const mostColumns = 2000
const shownFields = 'MESSAGE,SYSLOG_IDENTIFIER,_PID'

/** systemd's journal; `unitOf` gives a service's unit. @throws Fault agent.service_unknown by `unitOf` */
export function journal(unitOf: (service: string) => string): LogSource {
  return {
    read: async ({ service, lines, sinceMinutes }, signal) => {
      const args = ['--no-pager', '--quiet', '--reverse', '--output=json']
      args.push(`--output-fields=${shownFields}`, `--lines=${lines + 1}`)
      if (service !== undefined) args.push(`--unit=${unitOf(service)}`)
      if (sinceMinutes !== undefined) args.push(`--since=-${sinceMinutes}min`)
      const { stdout, truncated } = await run('journalctl', args, {
        limit: mostBytes,
        overflow: 'stop',
        signal,
        accept: [0, 1], // 1: there is no journal yet
      })
      const entries = stdout.toString('utf8').split('\n')
      entries.pop() // nothing, or an entry that was cut off
      const newest = entries.slice(0, lines).flatMap((entry) => shown(entry))
      return {
        lines: newest.toReversed(),
        truncated: truncated || entries.length > lines,
      }
    },
  }
}

/** One entry as a line: when, who, what. One that cannot be read says so. */
function shown(entry: string): string {
  const found = parsedEntry(entry)
  if (found === undefined) return '(an entry that cannot be read)'
  const { __REALTIME_TIMESTAMP: microseconds, SYSLOG_IDENTIFIER: who, _PID: pid, MESSAGE } = found
  const at = new Date(Number(microseconds) / 1000).toISOString()
  const from = `${String(who ?? 'unknown')}${pid === undefined ? '' : `[${String(pid)}]`}`
  return plain(`${at} ${from}: ${messageOf(MESSAGE)}`)
}

function parsedEntry(entry: string): Record<string, unknown> | undefined {
  try {
    const value = parseJson(entry, 'a journal entry', mostBytes)
    if (!isObject(value) || !(Number(value.__REALTIME_TIMESTAMP) > 0)) return undefined
    return value
  } catch {
    return undefined
  }
}

/** journalctl(1): text, null when it is too long, numbers when it is not Unicode. */
function messageOf(message: unknown): string {
  if (typeof message === 'string') return message
  if (Array.isArray(message)) return Buffer.from(message as number[]).toString('utf8') // by the format
  return '(a message too long to be shown)'
}

/** What a terminal would act upon becomes a space; a line stays one line. */
export function plain(text: string): string {
  return [...text.slice(0, mostColumns)]
    .map((character) => (/[\p{Cc}\p{Cf}\u2028\u2029]/u.test(character) ? ' ' : character))
    .join('')
}

/** The last lines of this very agent, kept in memory. */
export class OwnLog implements LogSource {
  readonly #now: () => number
  readonly #most: number
  #lines: { at: number; text: string }[] = []

  constructor(now: () => number, most = 2000) {
    this.#now = now
    this.#most = most
  }

  add(text: string): void {
    this.#lines.push({ at: this.#now(), text })
    if (this.#lines.length > this.#most) this.#lines = this.#lines.slice(-this.#most)
  }

  async read({ service, lines, sinceMinutes }: LogQuery): Promise<LogLines> {
    if (service !== undefined)
      throw agentFault('agent.journal_absent', 'systemd does not run here: no service has a log', {
        hint: 'without a service, the log of the agent is shown',
      })
    const from = sinceMinutes === undefined ? 0 : this.#now() - sinceMinutes * 60_000
    const found = this.#lines.filter(({ at }) => at >= from)
    return {
      lines: found
        .slice(-lines)
        .map(({ at, text }) => plain(`${new Date(at).toISOString()} holdfast-agent: ${text}`)),
      truncated: found.length > lines,
    }
  }
}
