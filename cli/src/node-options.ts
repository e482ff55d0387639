import type { ArgumentSpec, OptionSpec } from './command.ts'
import { placeOptions } from './coordinator-options.ts'

// Options that the commands about nodes share.

export const nodeArgument: ArgumentSpec = {
  name: 'NAME',
  says: 'its name, or the beginning of its id, at least 4 characters',
}

export const timeoutOption: OptionSpec = {
  flags: '--timeout <SECONDS>',
  says: 'how long its end is waited for, in seconds; the command itself goes on',
  default: '300',
}

/** Of commands that a node carries out. */
export const orderOptions: readonly OptionSpec[] = [
  { flags: '--wait', says: 'follow the command to its end; this is the default' },
  { flags: '--no-wait', says: 'print the id of the command and end; see node wait' },
  timeoutOption,
  ...placeOptions,
]

export const confirmOption: OptionSpec = {
  flags: '--confirm <NAME>',
  says: 'the name of the node once more; default typed at the terminal',
}

export const receiptOption: OptionSpec = {
  flags: '--out <FILE>',
  says: 'write the receipt to this file, mode 0600',
  completes: 'file',
}

/** Exit codes of commands to a node. */
export const orderExits = {
  unavailable: 'the node has no session with the coordinator, or has not answered in time',
  absent: 'there is no such node',
} as const
