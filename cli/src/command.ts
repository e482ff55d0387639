import type { Clock, FaultKind } from '@holdfast/base'
import type { Input } from './input.ts'
import type { Streams } from './streams.ts'
import type { Terminal } from './terminal.ts'

// The command tree is data: names, options, help and examples here and in the `*-commands.ts`
// files, what they do in `*-actions.ts` files that are loaded only when a command runs. Parser,
// help, completion and the tests over all commands read the same data.

/** One option, in commander's notation: `-o, --out <FILE>`. */
export interface OptionSpec {
  flags: string
  says: string
  /** Used when the option is not given, and shown with its unit. */
  default?: string
  choices?: readonly string[]
  /** May be given several times. */
  repeat?: boolean
  /** What the shell offers as its value. */
  completes?: 'file' | 'directory'
}

export interface ArgumentSpec {
  name: string
  says: string
  optional?: boolean
  repeat?: boolean
  choices?: readonly string[]
  completes?: 'file' | 'directory'
}

/** A command line that works as it stands, given the files and servers it names. */
export interface Example {
  says: string
  run: string
}

export interface CommandSpec {
  name: string
  /** One line, lower case, no full stop. */
  summary: string
  /** Paragraphs. */
  about?: readonly string[]
  arguments?: readonly ArgumentSpec[]
  options?: readonly OptionSpec[]
  examples: readonly Example[]
  /** Exit codes worth knowing here: the kind and what it means for this command. */
  exits?: Partial<Record<FaultKind, string>>
  /** Exit codes of a command that has its own, instead of the kinds'; shown as they are. */
  codes?: Readonly<Record<number, string>>
  /** Other commands, without `holdfast`. */
  related?: readonly string[]
  children?: readonly CommandSpec[]
  /** Started by Holdfast itself; not shown, not completed. */
  hidden?: boolean
  /** Loads what the command does; a command without it only has children. */
  load?: () => Promise<Action>
}

/** What a command found or did. Nothing is printed before it is complete. */
export interface Outcome {
  /** Printed with `--json`: one object or array; undefined when the command has printed its own lines. */
  json: unknown
  /** Printed without it. Bytes are written as they are, text gets a final newline. */
  text: string | Uint8Array
  /** When the answer is a bad one: decides the exit code, and nothing else. */
  kind?: FaultKind
  /** The exit code of a command that has its own codes. */
  code?: number
}

export type Action = (input: Input, context: Context) => Promise<Outcome | undefined>

/** What the words of a command line ask for. */
export type Request =
  | { kind: 'run'; path: readonly string[]; input: Input; load: () => Promise<Action> }
  | { kind: 'print'; text: string }

/** What the environment says; only main.ts reads it. */
export interface Settings {
  /** Records, proofs and journals; durable. */
  stateDirectory: string
  /** Sockets and marks of running instances; gone after a boot. */
  runtimeDirectory: string
  /** TPM2TOOLS_TCTI, if set. */
  tcti?: string
  /** Who is asking, for audit lines. */
  actor: string
  /** This program's file, to start further instances of it. */
  program: string
  version: string
}

/** What a command may use of the world. */
export interface Context {
  /** Every command, for help and completion. */
  tree: () => Promise<CommandSpec>
  json: boolean
  /** Nobody is asked anything. */
  unattended: boolean
  streams: Streams
  /** The controlling terminal, opened when first used; undefined when nobody is there. */
  terminal: Terminal | undefined
  settings: Settings
  signal: AbortSignal
  clock: Clock
}
