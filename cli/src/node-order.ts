import { type Fault, isFault } from '@holdfast/base'
import {
  type CommandData,
  type CommandKind,
  type commandSchema,
  nodeRoutes,
  parseCommandData,
} from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context } from './command.ts'
import { cliFault } from './faults.ts'
import { age } from './format.ts'
import { harmless } from './harmless.ts'
import type { Input } from './input.ts'
import { LineCutter } from './log-line.ts'
import { failureOf } from './node-failure.ts'
import type { Client, Node } from './node-place.ts'

// A command to a node: written down by the coordinator, and followed here until its end. What it
// prints on the way is shown as it comes.

export type Ordered = z.output<typeof commandSchema>

/** True: as it is; a function: line by line, in the form that it gives. */
export type Streaming = boolean | ((line: string) => string)

export interface Order<Kind extends CommandKind> {
  kind: Kind
  arguments?: Record<string, unknown>
  /** The node's name, for what cannot be undone. */
  confirmation?: string
  /** Show the command's output on standard output as it comes: as it is, or each line in another form. */
  streaming?: Streaming
}

/** How an order ended for this command line: with its result, or it was not waited for. */
export type Followed<Kind extends CommandKind> =
  | { ended: true; command: Ordered; data: CommandData<Kind> }
  | { ended: false; command: Ordered }

/** Whether the end is waited for, and how long. */
export interface Limits {
  waits: boolean
  seconds: number
}

/** As --no-wait and --timeout say. */
export function limitsOf(input: Input): Limits {
  return { waits: !input.flag('no-wait'), seconds: input.count('timeout', 1, 86_400) ?? 300 }
}

/** Milliseconds between looks: soon at first, because most commands are quick. */
const firstPause = 100
const longestPause = 1000
/** Looks that may fail in a row, because the coordinator's instance may be changing. */
const mostLost = 5

/**
 * Gives the order and, when its end is waited for, follows it there.
 * @throws Fault cli.node_silent, cli.command_expired, cli.command_pending, the node's own faults
 */
export async function order<Kind extends CommandKind>(
  client: Client,
  node: Node,
  wanted: Order<Kind>,
  { waits, seconds }: Limits,
  context: Context,
): Promise<Followed<Kind>> {
  if (waits) requireConnected(node, wanted.kind, context.clock.now())
  const { kind, confirmation } = wanted
  const command = await client.call(nodeRoutes.command, {
    params: { node: node.node },
    body: {
      command: kind,
      arguments: wanted.arguments ?? {},
      ...(confirmation === undefined ? {} : { confirmation }),
    },
  })
  if (!waits || command.state === 'confirm') return { ended: false, command }
  const presence = async () => {
    const seen = await client.call(nodeRoutes.get, { params: { node: node.node } })
    requireConnected(seen, kind, context.clock.now())
  }
  const { name } = node
  const options = { seconds, streaming: wanted.streaming, presence, name }
  const done = await follow(client, command, options, context)
  return { ended: true, command: done, data: parseCommandData(kind, done.result ?? {}) }
}

/** After so many looks it is asked whether the node is there at all. */
const looksOfPresence = 8
/** What a node answers at once: when it is away, no answer comes. */
const quick: readonly CommandKind[] = ['status', 'services', 'logs', 'unlock']

/** Whether the end of a command depends on the node's being there now. */
function mayBeLost({ command, state }: Ordered): boolean {
  return state === 'waiting' || (quick.includes(command) && state !== 'confirm')
}

/** What may wait for a node that is away; whoever asks for anything else wants the answer now. */
const mayWait: readonly CommandKind[] = ['leave', 'reset', 'panic']

function requireConnected(node: Node, kind: CommandKind, now: number): void {
  if (node.connected || mayWait.includes(kind)) return
  const { name, heardAt } = node
  const heard =
    heardAt === undefined ? 'was never heard' : `was last heard ${age(heardAt, now)} ago`
  throw cliFault('cli.node_silent', `${name} has no session with the coordinator; it ${heard}`, {
    hint: `holdfast doctor node ${name}; with --no-wait the command waits for it`,
  })
}

export interface FollowOptions {
  /** How long it is waited for, in seconds. */
  seconds: number
  streaming?: Streaming | undefined
  /** Throws when it is no use to wait on; asked now and then. */
  presence?: () => Promise<void>
  /** The node's, for what to type next. */
  name?: string
}

/** Follows a command to its end. @throws as `order` */
export async function follow(
  client: Client,
  begun: Ordered,
  { seconds, streaming = false, presence = async () => undefined, name }: FollowOptions,
  context: Context,
): Promise<Ordered> {
  const { clock, signal } = context
  const until = clock.now() + seconds * 1000
  const tell = teller(context, streaming)
  let command = begun
  for (let pause = firstPause, lost = 0, looks = 1; ; looks += 1) {
    await tell(command, command.state === 'done')
    if (command.state === 'done') return command
    if (command.state === 'failed') throw failureOf(command, name)
    if (command.state === 'expired') throw expired(command, name)
    if (clock.now() >= until) throw pending(command, seconds)
    await clock.sleep(pause, signal)
    pause = Math.min(pause * 1.5, longestPause)
    try {
      if (looks % looksOfPresence === 0 && mayBeLost(command)) await presence()
      command = await client.call(nodeRoutes.commandState, { params: { id: command.id } })
      lost = 0
    } catch (error) {
      lost += 1
      if (!isFault(error, 'link.unreachable') || lost > mostLost) throw error
    }
  }
}

/** Shows what is new about a command: output as it is, progress as a line beside it. */
function teller(
  { json, streams }: Context,
  streaming: Streaming,
): (now: Ordered, done: boolean) => Promise<void> {
  let [seen, told] = ['', '']
  const cutter = new LineCutter()
  const form = (fresh: string, done: boolean) => {
    if (typeof streaming === 'boolean') return harmless(fresh)
    const whole = [...cutter.push(fresh), ...(done ? cutter.end() : [])]
    return whole.map((line) => `${streaming(line)}\n`).join('')
  }
  return async ({ output = '', progress = '' }, done) => {
    if (json) return
    if (streaming !== false) {
      const fresh = form(freshOutput(seen, output), done)
      seen = output
      if (fresh !== '') await streams.out(fresh)
    }
    if (progress !== told && progress !== '') streams.err(progress)
    told = progress
  }
}

/** Characters by which the end of what was seen is found again, after the beginning was cut off. */
const anchorLength = 400

/** What has been added to an output of which only the end is kept. */
export function freshOutput(seen: string, output: string): string {
  if (output.startsWith(seen)) return output.slice(seen.length)
  const anchor = seen.slice(-anchorLength)
  const at = output.lastIndexOf(anchor)
  return at === -1 ? output : output.slice(at + anchor.length)
}

function expired({ id, command, node }: Ordered, name = node.slice(0, 12)): Fault {
  return cliFault('cli.command_expired', `${command} was not carried out in time; it is given up`, {
    hint: `why is the node silent? holdfast doctor node ${name}`,
    details: { id },
  })
}

function pending({ id, command, state }: Ordered, seconds: number): Fault {
  const held = state === 'confirm'
  const how = held ? 'it waits for a second person' : `it is ${state} and goes on`
  return cliFault('cli.command_pending', `${command} has not ended within ${seconds} s; ${how}`, {
    hint: held ? `somebody else: holdfast node approve ${id}` : `wait on: holdfast node wait ${id}`,
    details: { id, state },
  })
}

/** One sentence for an order that was given and not waited for. */
export function unendedText({ id, command, state, progress }: Ordered, name: string): string {
  if (state !== 'confirm') return `${id}\n${command} was ordered; holdfast node wait ${id}`
  return [
    `${command} on ${name} needs a second person, who is not you:`,
    `  holdfast node approve ${id}`,
    ...(progress === undefined ? [] : [`once approved, ${progress}`]),
  ].join('\n')
}
