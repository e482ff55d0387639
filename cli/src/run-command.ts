import { debuglog } from 'node:util'
import { type Clock, systemClock } from '@holdfast/base'
import type { CommandSpec, Context, Request, Settings } from './command.ts'
import { exitCodeOf, exitCodeOfKind } from './exit-codes.ts'
import { stateDirectoryOf } from './fleet-state.ts'
import { harmless } from './harmless.ts'
import { printError } from './output.ts'
import { quickParse } from './quick-parse.ts'
import { sealCommands } from './seal-commands.ts'
import type { Streams } from './streams.ts'
import type { Terminal } from './terminal.ts'

/** What main.ts hands over. */
export interface World {
  settings: Settings
  streams: Streams
  /** Opens the controlling terminal, if there is one. */
  terminal: () => Terminal | undefined
  signal: AbortSignal
  /** The exit code for the signal that aborted. */
  signalCode: () => number
  clock?: Clock
}

const debug = debuglog('holdfast')

/** Runs one command line to its end; the result is the exit code. Everything is printed. */
export async function runCommand(
  tree: () => Promise<CommandSpec>,
  words: readonly string[],
  world: World,
): Promise<number> {
  const { streams, settings, signal } = world
  // Usage errors come before the options are known, so the words themselves decide.
  let json = words.includes('--json')
  let command = 'holdfast'
  try {
    const request = quickParse(sealCommands, words) ?? (await fullParse(tree, words, settings))
    if (request.kind === 'print') {
      await streams.out(request.text.endsWith('\n') ? request.text : `${request.text}\n`)
      return 0
    }
    command = ['holdfast', ...request.path].join(' ')
    const { input } = request
    json = input.flag('json')
    const unattended = input.flag('unattended')
    const context: Context = {
      tree,
      json,
      unattended,
      streams,
      terminal: unattended ? undefined : world.terminal(),
      settings: { ...settings, stateDirectory: stateDirectoryOf(input, settings) },
      signal,
      clock: world.clock ?? systemClock,
    }
    const action = await request.load()
    const outcome = await action(input, context)
    if (outcome === undefined) return 0
    const { text } = outcome
    const forPeople = typeof text === 'string' ? harmless(text) : text
    const printed = shown(json ? (JSON.stringify(outcome.json) ?? '') : forPeople)
    await streams.out(printed)
    if (typeof printed !== 'string') printed.fill(0)
    if (outcome.code !== undefined) return outcome.code
    return outcome.kind === undefined ? 0 : exitCodeOfKind(outcome.kind)
  } catch (error) {
    debug('%O', error)
    if (signal.aborted) {
      if (!json) streams.err('stopped')
      return world.signalCode()
    }
    await printError(error, command, { json, streams })
    return exitCodeOf(error)
  }
}

async function fullParse(
  tree: () => Promise<CommandSpec>,
  words: readonly string[],
  { version }: Settings,
): Promise<Request> {
  const [{ parse }, commands] = await Promise.all([import('./program.ts'), tree()])
  return await parse(commands, words, version)
}

function shown(text: string | Uint8Array): string | Uint8Array {
  if (typeof text !== 'string' || text === '' || text.endsWith('\n')) return text
  return `${text}\n`
}
