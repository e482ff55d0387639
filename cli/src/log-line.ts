import { isObject, parseJson } from '@holdfast/base'
import { moment } from './format.ts'
import { harmless } from './harmless.ts'
import type { Paint, Tone } from './output.ts'

// Lines of a node's log for people: time, level, service, text. A node gives `TIME WHO[PID]: MESSAGE`, from
// its journal or from its agent's memory; the message is text, a line of pino, or an event of the agent.

export interface LogLine {
  /** Milliseconds since 1970; undefined for a line that says no time. */
  at?: number
  /** Empty when the message says none, as that of a program that is not ours. */
  level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | ''
  service: string
  text: string
}

type Level = LogLine['level']

const tones: Readonly<Partial<Record<Level, Tone>>> = {
  ...{ trace: 'dim', debug: 'dim', warn: 'warn' },
  ...{ error: 'bad', fatal: 'bad' },
}
const levels: readonly Level[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal']

/** Levels of the agent's events; all others tell how it goes. */
const eventLevels: Readonly<Record<string, Level>> = {
  ...{ incident: 'error', console_failed: 'error' },
  ...{ waiting: 'warn', repaired: 'warn', forgotten: 'warn' },
}

/** Reads one line; every line is one, whatever is in it. */
export function parseLogLine(line: string): LogLine {
  const found = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) ([^:]*): (.*)$/s.exec(line)
  if (found === null) return messageOf('', line, undefined)
  const [, time = '', service = '', message = ''] = found
  const at = Date.parse(time)
  return messageOf(service, message, Number.isNaN(at) ? undefined : at)
}

function messageOf(service: string, message: string, at: number | undefined): LogLine {
  const place = at === undefined ? {} : { at }
  const fields = fieldsOf(message)
  if (fields === undefined) return { ...place, level: '', service, text: message }
  const { kind, ...event } = fields
  if (typeof kind === 'string') {
    const level = eventLevels[kind] ?? 'info'
    return { ...place, level, service, text: eventText(kind, event) }
  }
  return { ...pinoTime(fields), ...place, ...pinoLine(fields, service) }
}

/** The members of a message that is an event of the agent or a line of pino. */
function fieldsOf(message: string): Record<string, unknown> | undefined {
  if (!message.startsWith('{')) return undefined
  try {
    const value = parseJson(message, 'a line of a log')
    if (!isObject(value)) return undefined
    const known = typeof value.kind === 'string' || (value.level !== undefined && 'msg' in value)
    return known ? value : undefined
  } catch {
    return undefined // text that only begins like that, or was cut off
  }
}

/** `incident`: what happened; `phase`: open; and so on: the kind, and what there is to say of it. */
function eventText(kind: string, { text, code, ...rest }: Record<string, unknown>): string {
  const told = [code, text].filter((each) => typeof each === 'string').join(': ')
  const about = [...Object.values(rest).map(shown), told].filter((each) => each !== '').join(' ')
  const head = kind.replaceAll('_', ' ')
  return about === '' ? head : `${head}: ${about}`
}

/** pino numbers its levels in tens unless it is told to name them. */
function pinoLine(fields: Record<string, unknown>, service: string): Omit<LogLine, 'at'> {
  const { level, time: _time, pid: _pid, hostname: _host, name, msg, ...rest } = fields
  const named = levels.find((each) => each === level) ?? levels[Math.floor(Number(level) / 10) - 1]
  const about = Object.entries(rest).map(([key, value]) => `${key}=${shown(value)}`)
  return {
    level: named ?? '',
    service: service === '' ? shown(name ?? '') : service,
    text: [shown(msg), ...about].join(' '),
  }
}

function pinoTime({ time }: Record<string, unknown>): { at?: number } {
  const at = typeof time === 'string' ? Date.parse(time) : Number(time)
  return Number.isFinite(at) ? { at } : {}
}

function shown(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** The line as it is shown. */
export function logText(line: string, paint: Paint): string {
  const { at, level, service, text } = parseLogLine(line)
  const tone = tones[level]
  const word = level.padEnd(5)
  const who = service === '' ? [] : [service]
  const head = [moment(at).padEnd(20), tone === undefined ? word : paint(tone, word), ...who]
  // A message may carry line ends: it must not pass for lines of its own.
  return harmless(`${head.join('  ')}  ${text}`.replace(/[\n\t]+/g, ' '))
}

/** Cuts what comes in pieces into lines; the last one is kept until it is whole. */
export class LineCutter {
  #rest = ''

  push(text: string): readonly string[] {
    const lines = `${this.#rest}${text}`.split('\n')
    this.#rest = lines.pop() ?? ''
    return lines
  }

  /** What is left when nothing more comes. */
  end(): readonly string[] {
    const rest = this.#rest
    this.#rest = ''
    return rest === '' ? [] : [rest]
  }
}
