import type { CommandKind } from '@holdfast/protocol'
import type { CommandArguments, CommandData } from '@holdfast/protocol/commands'

// How one kind of command is carried out. Handlers are small, live beside what they act on, and are
// put together in `command-table.ts`.

/** One command under way. */
export interface Call<Kind extends CommandKind> {
  readonly id: string
  /** Who asked. */
  readonly by: string
  /** Checked, with defaults filled in. */
  readonly given: CommandArguments<Kind>
  /** True when the agent was stopped in the middle of this command and has started again. */
  readonly again: boolean
  /** The agent stops: end soon, without a result; `restart` says what comes of the command. */
  readonly signal: AbortSignal
  /** Tells how far it is; lost when there is no session. */
  progress(text: string, done?: number, of?: number): void
  /**
   * Sends a piece of output and waits until a coordinator has it.
   * @throws Fault agent.not_connected when the session is away
   */
  output(text: string): Promise<void>
}

export interface CommandHandler<Kind extends CommandKind> {
  /**
   * What a stop of the agent in the middle of it means. `again`: it is run again with the arguments
   * that were written down, so it must bear that. `interrupted`: it is answered as interrupted, and
   * its arguments are never written down. `unrecorded`: nothing is written down at all; it only reads,
   * and a repeated one is simply done again.
   */
  readonly restart: 'again' | 'interrupted' | 'unrecorded'
  /** Commands of one lane are run one after another, all others side by side. */
  readonly lane?: string
  /** Undefined when the result comes later, through `Commands.finish`. */
  run(call: Call<Kind>): Promise<CommandData<Kind> | undefined>
}

export type CommandHandlers = { readonly [Kind in CommandKind]?: CommandHandler<Kind> }
