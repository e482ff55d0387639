import { closeSync, openSync } from 'node:fs'
import { ReadStream, WriteStream } from 'node:tty'
import { Secret } from '@holdfast/base'
import { cliFault } from './faults.ts'
import { harmless } from './harmless.ts'

// Questions go to the controlling terminal and not to standard input and output, which carry the
// secrets themselves. What is typed as a secret is not echoed, not even as dots.

export interface Terminal {
  /** Asks for a secret without echo. @throws Fault cli.interrupted */
  secret(message: string, signal?: AbortSignal): Promise<Secret>
  /** Asks yes or no; no is the default. @throws Fault cli.interrupted */
  confirm(message: string, signal?: AbortSignal): Promise<boolean>
  /** Asks for one line of text. @throws Fault cli.interrupted */
  line(message: string, signal?: AbortSignal): Promise<string>
}

/** The controlling terminal, or undefined when this process has none. */
export function controllingTerminal(path = '/dev/tty'): Terminal | undefined {
  try {
    closeSync(openSync(path, 'r+'))
  } catch {
    return undefined
  }
  return {
    secret: (message, signal) =>
      ask(path, async (prompts, streams) => {
        const asking = { message: harmless(message), mask: '', ...streams, ...asked(signal) }
        const typed = await prompts.password(asking)
        return typeof typed === 'string' ? Secret.copy(typed) : undefined
      }),
    confirm: (message, signal) =>
      ask(path, async (prompts, streams) => {
        const question = { message: harmless(message), initialValue: false }
        const options = { ...question, ...streams, ...asked(signal) }
        const answer = await prompts.confirm(options)
        return typeof answer === 'boolean' ? answer : undefined
      }),
    line: (message, signal) =>
      ask(path, async (prompts, streams) => {
        const typed = await prompts.text({ message, ...streams, ...asked(signal) })
        return typeof typed === 'string' ? typed : undefined
      }),
  }
}

function asked(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}

type Prompts = typeof import('@clack/prompts')

async function ask<T>(
  path: string,
  question: (
    prompts: Prompts,
    streams: { input: ReadStream; output: WriteStream; withGuide: false },
  ) => Promise<T | undefined>,
): Promise<T> {
  const prompts = await import('@clack/prompts')
  const input = new ReadStream(openSync(path, 'r'))
  const output = new WriteStream(openSync(path, 'w'))
  output.columns ||= 80 // a terminal that does not know its size, such as a serial line, says 0
  try {
    const answer = await question(prompts, { input, output, withGuide: false })
    if (answer !== undefined) return answer
    throw cliFault('cli.interrupted', 'stopped at the prompt; nothing was changed')
  } finally {
    input.destroy()
    output.destroy()
  }
}
