import { join } from 'node:path'
import { DurableRecord, isFault, messageOf } from '@holdfast/base'
import type { CommandFrame } from '@holdfast/link'
import type { CommandKind } from '@holdfast/protocol'
import { commandArguments, parseArguments } from '@holdfast/protocol/commands'
import type { AgentFrame } from '@holdfast/protocol/frames'
import { z } from 'zod'
import type { Call, CommandHandler, CommandHandlers } from './command-handler.ts'
import { agentFault } from './faults.ts'

// What a node does when it is told to. A command may come twice and is acted on once: it is written
// down before it begins, and its result before it is sent. A node that was stopped in the middle
// finishes the command after its start, or answers that it was interrupted; none is lost.
//
// Only so many results are kept, those of the lowest issue numbers go first, and the highest number that
// went is remembered: whatever is not above it may have been done, so it is not done. No clock is
// asked. One that comes late is still unknown and above that number, unless hundreds of later ones
// have been finished meanwhile.

export type CommandResult = Extract<AgentFrame, { kind: 'result' }>

export interface CommandDeps {
  directory: string
  handlers: CommandHandlers
  /** Kept over reconnections; resolves when a coordinator has it. */
  deliver: (frame: AgentFrame) => Promise<void>
  /** Sent now or not at all. */
  send: (frame: AgentFrame) => Promise<void>
  signal: AbortSignal
}

const kinds = Object.keys(commandArguments) as [CommandKind, ...CommandKind[]] // its keys

const begunSchema = z.strictObject({
  id: z.string(),
  command: z.enum(kinds),
  by: z.string(),
  issue: z.number().int().default(0),
  arguments: z.record(z.string(), z.unknown()),
})
type Begun = z.infer<typeof begunSchema>

const recordSchema = z.strictObject({
  v: z.literal(1),
  begun: z.array(begunSchema).default([]),
  /** The highest issue number of which a result has been forgotten. */
  forgotten: z.number().int().default(-1),
  results: z.array(
    z.strictObject({
      kind: z.literal('result'),
      command: z.string(),
      ok: z.boolean(),
      code: z.string().optional(),
      message: z.string().optional(),
      data: z.record(z.string(), z.unknown()).optional(),
      issue: z.number().int().default(0),
    }),
  ),
})
type Recorded = z.infer<typeof recordSchema>

/** Finished commands that are remembered. */
const mostResults = 200

export class Commands implements AsyncDisposable {
  readonly #deps: CommandDeps
  readonly #record: DurableRecord<Recorded>
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  readonly #running = new Map<string, Promise<void>>()
  readonly #lanes = new Map<string, Promise<unknown>>()
  #away = new AbortController()
  #writing: Promise<unknown> = Promise.resolve()

  constructor(deps: CommandDeps) {
    this.#deps = deps
    this.#signal = AbortSignal.any([deps.signal, this.#stop.signal])
    this.#away.abort()
    this.#record = new DurableRecord(join(deps.directory, 'commands.json'), (value) =>
      recordSchema.parse(value),
    )
  }

  /** Goes on with what a stop of the agent has interrupted, or says that it was. */
  async resume(): Promise<void> {
    for (const begun of (await this.#read()).begun) {
      if (this.#running.has(begun.id)) continue
      if (this.#handler(begun.command)?.restart === 'again') this.#begin(begun, true)
      else this.#send(await this.finish(interrupted(begun)))
    }
  }

  /** Takes a checked command in; its result is delivered when it is there. */
  async take({ id, command, by, issue, arguments: given }: CommandFrame): Promise<void> {
    if (this.#running.has(id)) return
    const { results, begun, forgotten } = await this.#read()
    const done = results.find((result) => result.command === id)
    if (done !== undefined) return this.#send(resultOf(done))
    if (this.#running.has(id) || begun.some((each) => each.id === id)) return
    if (issue <= forgotten) return this.#send(stale(id, command))
    const handler = this.#handler(command)
    const kept = handler?.restart === 'again' ? given : {}
    if (handler !== undefined && handler.restart !== 'unrecorded')
      await this.#change((record) => ({
        ...record,
        begun: [...record.begun, { id, command, by, issue, arguments: kept }],
      }))
    this.#begin({ id, command, by, issue, arguments: given }, false)
  }

  /** Writes a result down and ends its command. */
  async finish(result: CommandResult): Promise<CommandResult> {
    await this.#change(({ begun, results, forgotten, ...record }) => {
      const { issue = 0 } = begun.find(({ id }) => id === result.command) ?? {}
      const known = results.some(({ command }) => command === result.command)
      const all = known ? results : [...results, { ...result, issue }]
      const sorted = all.toSorted((a, b) => a.issue - b.issue)
      const gone = sorted.slice(0, -mostResults).map((each) => each.issue)
      return {
        ...record,
        begun: begun.filter(({ id }) => id !== result.command),
        forgotten: Math.max(forgotten, ...gone),
        results: sorted.slice(-mostResults),
      }
    })
    return result
  }

  /** Whether a coordinator listens: output is only made for somebody. */
  connected(open: boolean): void {
    if (!open) this.#away.abort()
    else if (this.#away.signal.aborted) this.#away = new AbortController()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await Promise.allSettled(this.#running.values())
    await this.#writing.catch(() => undefined)
  }

  #handler<Kind extends CommandKind>(kind: Kind): CommandHandlers[Kind] {
    return this.#deps.handlers[kind]
  }

  #begin<Kind extends CommandKind>(begun: Begun & { command: Kind }, again: boolean): void {
    const lane = this.#handler(begun.command)?.lane
    const before = lane === undefined ? undefined : this.#lanes.get(lane)
    const running = (before ?? Promise.resolve())
      .then(() => this.#carryOut(begun, again))
      .catch((error: unknown) => this.#unrecordable(begun.id, error))
      .finally(() => this.#running.delete(begun.id))
    this.#running.set(begun.id, running)
    if (lane !== undefined) this.#lanes.set(lane, running)
  }

  async #carryOut<Kind extends CommandKind>(
    begun: Begun & { command: Kind },
    again: boolean,
  ): Promise<void> {
    if (this.#signal.aborted) return
    const handler: CommandHandler<Kind> | undefined = this.#handler(begun.command)
    const result = await this.#resultOf(handler, begun, again)
    if (result === undefined) return
    const recorded = handler !== undefined && handler.restart !== 'unrecorded'
    this.#send(recorded ? await this.finish(result) : result)
  }

  /** The result; none when it comes later, or when the agent stops before there is one. */
  async #resultOf<Kind extends CommandKind>(
    handler: CommandHandler<Kind> | undefined,
    begun: Begun & { command: Kind },
    again: boolean,
  ): Promise<CommandResult | undefined> {
    const { id, command, by } = begun
    try {
      if (handler === undefined)
        throw agentFault('agent.command_unknown', `this agent does not know ${command}`)
      const given = parseArguments(command, begun.arguments)
      const data = await handler.run({ ...this.#call(id), by, given, again })
      return data === undefined ? undefined : { kind: 'result', command: id, ok: true, data }
    } catch (error) {
      return this.#signal.aborted ? undefined : failed(id, error)
    }
  }

  #call(id: string): Pick<Call<CommandKind>, 'id' | 'signal' | 'progress' | 'output'> {
    return {
      id,
      signal: this.#signal,
      progress: (text, done, of) => {
        const counted = done === undefined || of === undefined ? {} : { done, of }
        const frame = {
          kind: 'progress',
          command: id,
          text: text.slice(0, 500),
          ...counted,
        } as const
        this.#deps.send(frame).catch(() => undefined) // nobody listens
      },
      output: (text) => this.#output({ kind: 'output', command: id, text }),
    }
  }

  async #output(frame: AgentFrame & { kind: 'output' }): Promise<void> {
    const away = this.#away.signal
    const gone = () => agentFault('agent.not_connected', 'the session ended before the output did')
    if (away.aborted) throw gone()
    const { promise, reject } = Promise.withResolvers<never>()
    const leave = () => reject(gone())
    away.addEventListener('abort', leave, { once: true })
    try {
      await Promise.race([this.#deps.deliver(frame), promise])
    } finally {
      away.removeEventListener('abort', leave)
    }
  }

  /** The disk does not take the result: it is told all the same, as something that failed. */
  #unrecordable(id: string, error: unknown): void {
    this.#send(failed(id, error))
  }

  /** Does not wait for the acknowledgement, which may take as long as the network is down. */
  #send(result: CommandResult): void {
    this.#deps.deliver(result).catch(() => undefined) // the session has ended; it is asked for again
  }

  async #read(): Promise<Recorded> {
    return (await this.#record.read()) ?? { v: 1, begun: [], forgotten: -1, results: [] }
  }

  /** Changes of the record one after another. */
  async #change(change: (record: Recorded) => Recorded): Promise<void> {
    const writing = this.#writing
      .catch(() => undefined)
      .then(async () => await this.#record.write(change(await this.#read())))
    this.#writing = writing
    await writing
  }
}

function resultOf({ issue: _, ...result }: Recorded['results'][number]): CommandResult {
  return result as CommandResult // written by this class
}

function stale(id: string, command: string): CommandResult {
  const text = `this ${command} is as old as orders that this node has forgotten, and may have been done`
  return failed(id, agentFault('agent.command_stale', text))
}

function failed(command: string, error: unknown): CommandResult {
  const message = messageOf(error).slice(0, 2000)
  return { kind: 'result', command, ok: false, code: codeOf(error), message }
}

function codeOf(error: unknown): string {
  if (isFault(error)) return error.code
  return error instanceof z.ZodError ? 'agent.request_malformed' : 'agent.internal'
}

function interrupted({ id, command }: Begun): CommandResult {
  const text = `the agent was stopped in the middle of ${command}; order it again`
  return failed(id, agentFault('agent.command_interrupted', text))
}
