import { styleText } from 'node:util'
import { Fault, messageOf } from '@holdfast/base'
import type { Context } from './command.ts'
import { cliFault } from './faults.ts'

// Rules of what is printed: answers to standard output, everything else to standard error; colour
// only on a terminal and never with NO_COLOR; a secret only where the command is there to
// print it.

export type Tone = 'good' | 'bad' | 'warn' | 'dim' | 'strong'

const formats = { good: 'green', bad: 'red', warn: 'yellow', dim: 'dim', strong: 'bold' } as const

/** Colours text for standard output, or leaves it. */
export type Paint = (tone: Tone, text: string) => string

/** styleText itself looks at NO_COLOR and whether the stream is a terminal. */
export function painter(stream: NodeJS.WriteStream = process.stdout): Paint {
  return (tone, text) => styleText(formats[tone], text, { stream })
}

/** The tone of a rehearsal's state. */
export function toneOf(state: string): Tone {
  if (state === 'proven' || state === 'ok') return 'good'
  return state === 'failed' || state === 'failing' ? 'bad' : 'warn'
}

/** A table with plain ruled columns. */
export async function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): Promise<string> {
  const { default: Table } = await import('cli-table3')
  const made = new Table({
    head: [...head],
    chars: plainBorders,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
  })
  for (const row of rows) made.push([...row])
  return made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}

const borderNames = [
  'top',
  'top-mid',
  'top-left',
  'top-right',
  'bottom',
  'bottom-mid',
  'bottom-left',
  'bottom-right',
  'left',
  'left-mid',
  'mid',
  'mid-mid',
  'right',
  'right-mid',
  'middle',
] as const

const plainBorders = Object.fromEntries(borderNames.map((name) => [name, '']))

/** What to do next when a fault does not say: never is an error a dead end. */
function hintFor({ code, hint, kind }: Fault, command: string): string {
  // Below this part nobody knows who looks into it.
  if (code === 'link.unreachable' && hint !== undefined)
    return `${hint}; which layer fails: holdfast doctor`
  if (hint !== undefined) return hint
  switch (kind) {
    case 'usage':
    case 'refused':
      return `${command} --help`
    case 'invalid':
    case 'integrity':
      return `check that it is the right one, whole and unaltered; what is expected: ${command} --help`
    case 'unavailable':
      return `try again, with a longer --timeout where there is one: ${command} --help`
    case 'absent':
      return `check the name and that you may read it; what is expected: ${command} --help`
    case 'busy':
      return 'wait for the other command to finish, then try again'
    case 'internal':
      return 'run it again with NODE_DEBUG=holdfast and report what it prints'
    default:
      return kind satisfies never
  }
}

/**
 * Prints an error: lines for people, one object for programs. Never a stack, never a secret.
 * @param command its words, such as `holdfast vault bind`
 */
export async function printError(
  error: unknown,
  command: string,
  context: Pick<Context, 'json' | 'streams'>,
): Promise<void> {
  const fault = asFault(error)
  const hint = hintFor(fault, command)
  if (context.json) {
    const { code, kind, message, details = {} } = fault
    const shown = { error: { code, kind, message, hint, details } }
    await context.streams.out(`${JSON.stringify(shown)}\n`)
    return
  }
  const paint = painter(process.stderr)
  context.streams.err(`${paint('bad', 'error:')} ${fault.message}`)
  context.streams.err(`${paint('warn', 'hint:')} ${hint}`)
}

/** Anything thrown, as a fault; what is none is a defect of ours. */
export function asFault(error: unknown): Fault {
  if (error instanceof Fault) return error
  const code = (error as { code?: unknown } | null)?.code
  const text = typeof code === 'string' ? `${messageOf(error)} (${code})` : messageOf(error)
  return cliFault('cli.internal', text, {
    cause: error,
    hint: 'this is a defect of Holdfast; run it again with NODE_DEBUG=holdfast for the stack and report it',
  })
}
