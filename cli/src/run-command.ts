import { debuglog } from 'node:util'
import { type Clock, systemClock } from '@holdfast/base'
import type { CommandSpec, Context, Settings } from './command.ts'
import { exitCodeOf, exitCodeOfKind } from './exit-codes.ts'
import { printError } from './output.ts'
import { commonOf, parse } from './program.ts'
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
  tree: CommandSpec,
  words: readonly string[],
  world: World,
): Promise<number> {
  const { streams, settings, signal } = world
  // Usage errors come before the options are known, so the words themselves decide.
  let json = words.includes('--json')
  let command = 'holdfast'
  try {
    const request = await parse(tree, words, settings.version)
    if (request.kind === 'print') {
      await streams.out(request.text.endsWith('\n') ? request.text : `${request.text}\n`)
      return 0
    }
    command = ['holdfast', ...request.path].join(' ')
    const common = commonOf(request)
    json = common.json
    const context: Context = {
      tree,
      json,
      unattended: common.unattended,
      streams,
      terminal: common.unattended ? undefined : world.terminal(),
      settings: { ...settings, stateDirectory: common.stateDirectory ?? settings.stateDirectory },
      signal,
      clock: world.clock ?? systemClock,
    }
    const action = await request.load()
    const outcome = await action(request.input, context)
    if (outcome === undefined) return 0
    const printed = shown(json ? JSON.stringify(outcome.json) : outcome.text)
    await streams.out(printed)
    if (typeof printed !== 'string') printed.fill(0)
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

function shown(text: string | Uint8Array): string | Uint8Array {
  if (typeof text !== 'string' || text === '' || text.endsWith('\n')) return text
  return `${text}\n`
}
