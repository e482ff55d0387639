import { type Clock, canonicalJson, parseJsonObject } from '@holdfast/base'
import { type CommandKind, commandKinds, type commandSchema } from '@holdfast/protocol'
import { parseArguments } from '@holdfast/protocol/commands'
import type { AgentFrame } from '@holdfast/protocol/frames'
import type { Selectable } from 'kysely'
import { z } from 'zod'
import { record } from './audit.ts'
import { nextIssue } from './command-issues.ts'
import { type CommandState, nextCommandState } from './command-states.ts'
import { namesOf, recordStranded } from './departures.ts'
import { nodeRow } from './nodes.ts'
import { nodeFault } from './nodes-faults.ts'
import type { Stranded } from './placement.ts'
import type { Database, Work } from './store.ts'
import type { CommandTable } from './tables.ts'
import { newId } from './ways.ts'

// The queue of commands. A command is written down before anybody is told, sent at least once (again
// after every reconnection until its result is here) and acted on at most once, because the agent
// remembers ids. Its states are in command-states.ts.

export type Command = z.infer<typeof commandSchema>
export type CommandRow = Selectable<CommandTable>
export type Result = Extract<AgentFrame, { kind: 'result' }>

const minute = 60_000
const day = 24 * 60 * minute
/** What must not happen long after somebody asked for it. */
const patience: Partial<Record<CommandKind, number>> = {
  status: 10 * minute,
  logs: 10 * minute,
  services: 10 * minute,
  restart: 10 * minute,
  reboot: 10 * minute,
  unlock: 60 * minute,
}
/** Characters of output that are kept: the last ones. */
const outputKept = 1_000_000

export interface CommandOrder {
  command: CommandKind
  arguments: Record<string, unknown>
  /** The node's name, for what cannot be undone. */
  confirmation?: string | undefined
}

/**
 * Reset and levels 2 and 3 of panic destroy keys, and so does a node that leaves, orderly or not, once
 * its wards have moved; a dry run only tells.
 */
function isDestructive({ command, arguments: given }: CommandOrder): boolean {
  if (command === 'reset' || command === 'leave') return true
  return command === 'panic' && given.level !== 1 && given.dryRun !== true
}

/** What decides whether a command is taken, and when the node is told. */
export interface CommandRule {
  /** A destructive one waits for somebody else's approval. */
  twoPersonRule: boolean
  /** Whom it would strand if the node went away. @throws Fault node.needed */
  depart?: (
    work: Work,
    node: string,
    kind: 'leave' | 'reboot',
    force: boolean,
  ) => Promise<Stranded[]>
}

/**
 * Writes a command down.
 * @throws Fault node.unknown, node.needed, command.arguments_invalid, command.confirmation_needed
 */
export async function orderCommand(
  work: Work,
  clock: Clock,
  node: string,
  order: CommandOrder,
  rule: CommandRule,
  by: string,
): Promise<Command> {
  const { name } = await nodeRow(work, node)
  const given = checkedArguments(order)
  if (isDestructive(order) && order.confirmation !== name) {
    const text = `${order.command} on ${name} cannot be undone and needs the node's name as confirmation`
    throw nodeFault('command.confirmation_needed', text, { hint: `add --confirm ${name}` })
  }
  const { command } = order
  const stranded = await departure(work, { node, command, given }, rule)
  const state = firstState(order, rule)
  const now = clock.now()
  const row: CommandRow = {
    id: newId(),
    node,
    command,
    arguments: canonicalJson(given),
    by,
    approved_by: null,
    state,
    issue: await nextIssue(work, now),
    created: now,
    expires: now + (patience[command] ?? day),
    finished: null,
    progress: strandedText(stranded),
    output: null,
    result: null,
    code: null,
    message: null,
  }
  await work.insertInto('commands').values(row).execute()
  await record(work, clock, {
    actor: by,
    action: `command.${command}`,
    subject: node,
    outcome: 'done',
    data: { id: row.id, state },
  })
  // Nobody is stranded by what still waits for somebody else.
  if (stranded.length > 0 && state !== 'confirm')
    await recordStranded(work, clock, { node, kind: command, by }, stranded)
  return shownCommand(row)
}

function firstState(order: CommandOrder, rule: CommandRule): CommandState {
  if (isDestructive(order) && rule.twoPersonRule) return 'confirm'
  return isPrepared(order.command, rule) ? 'preparing' : 'waiting'
}

/** True for what is told only after the node's wards have moved. */
function isPrepared(command: string, { depart }: Pick<CommandRule, 'depart'>): boolean {
  return command === 'leave' && depart !== undefined
}

function strandedText(stranded: readonly Stranded[]): string | null {
  return stranded.length === 0 ? null : `too few guardians are left for ${namesOf(stranded)}`
}

/** Arguments as the protocol has them, with defaults. @throws Fault command.arguments_invalid */
function checkedArguments({ command, arguments: given }: CommandOrder): Record<string, unknown> {
  try {
    return { ...parseArguments(command, given) }
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw error
    const issues = error.issues.map(({ path, message }) => ({ path: path.join('.'), message }))
    const text = issues.map(({ path, message }) => `${path === '' ? '' : `${path}: `}${message}`)
    throw nodeFault(
      'command.arguments_invalid',
      `${command} does not take these: ${text.join('; ')}`,
      {
        details: { issues },
      },
    )
  }
}

async function departure(
  work: Work,
  { node, command, given }: { node: string; command: string; given: Record<string, unknown> },
  { depart }: Pick<CommandRule, 'depart'>,
): Promise<Stranded[]> {
  if (depart === undefined || (command !== 'leave' && command !== 'reboot')) return []
  return await depart(work, node, command, given.force === true)
}

/**
 * The second person. Whether a node may leave is looked at once more: the fleet is another by now.
 * @throws Fault command.unknown, command.same_person, command.not_waiting_for_approval, node.needed
 */
export async function approveCommand(
  work: Work,
  clock: Clock,
  id: string,
  rule: Pick<CommandRule, 'depart'>,
  by: string,
): Promise<Command> {
  const row = await commandRow(work, id)
  if (row.state !== 'confirm' || row.expires <= clock.now())
    throw nodeFault('command.not_waiting_for_approval', `the command is ${row.state}`)
  if (row.by === by) {
    throw nodeFault('command.same_person', 'the command needs the approval of another person', {
      hint: `somebody other than ${by}: holdfast node approve ${id}`,
    })
  }
  const { node, command } = row
  const stranded = await departure(work, { node, command, given: argumentsOf(row) }, rule)
  const issue = await nextIssue(work, clock.now())
  const event = isPrepared(command, rule) ? 'approved_to_prepare' : 'approved'
  const state = nextCommandState('confirm', event)
  const change = { state, issue, approved_by: by, progress: strandedText(stranded) }
  await work.updateTable('commands').set(change).where('id', '=', id).execute()
  await record(work, clock, {
    actor: by,
    action: 'command.approve',
    subject: node,
    outcome: 'done',
    data: { id, command },
  })
  if (stranded.length > 0) await recordStranded(work, clock, { node, kind: command, by }, stranded)
  return shownCommand({ ...row, ...change })
}

/** @throws Fault command.unknown */
export async function getCommand(database: Database | Work, id: string): Promise<Command> {
  return shownCommand(await commandRow(database, id))
}

/** The last commands of a node, newest first. */
export async function listCommands(
  database: Database | Work,
  node: string,
  most = 100,
): Promise<Command[]> {
  const rows = await database
    .selectFrom('commands')
    .selectAll()
    .where('node', '=', node)
    .orderBy('created', 'desc')
    .orderBy('issue', 'desc') // several may have been given in one millisecond
    .limit(most)
    .execute()
  return rows.map(shownCommand)
}

/** What an agent said about a command since the last time it was written down. */
export interface Told {
  progress?: string
  output: string
}

/** Adds progress and output. A frame for another node's command, or a finished one, changes nothing. */
export async function noteProgress(
  work: Work,
  node: string,
  id: string,
  told: Told,
): Promise<void> {
  const row = await ownRow(work, node, id)
  if (row === undefined) return
  const state = nextCommandState(row.state as CommandState, 'progress') // only this file writes it
  await work
    .updateTable('commands')
    .set({
      state,
      ...(told.progress === undefined ? {} : { progress: told.progress }),
      ...(told.output === ''
        ? {}
        : { output: `${row.output ?? ''}${told.output}`.slice(-outputKept) }),
    })
    .where('id', '=', id)
    .execute()
}

/** Takes a result in and gives its command; the same one a second time changes nothing. */
export async function noteResult(
  work: Work,
  clock: Clock,
  node: string,
  result: Result,
): Promise<CommandRow | undefined> {
  const row = await ownRow(work, node, result.command)
  if (row === undefined) return undefined
  const before = row.state as CommandState // as above
  const state = nextCommandState(before, result.ok ? 'succeeded' : 'failed')
  if (state === before) return undefined
  await work
    .updateTable('commands')
    .set({
      state,
      finished: clock.now(),
      result: result.data === undefined ? null : canonicalJson(result.data),
      code: result.code ?? null,
      message: result.message ?? null,
    })
    .where('id', '=', row.id)
    .execute()
  await record(work, clock, {
    actor: `node:${node}`,
    action: `command.${row.command}`,
    subject: node,
    outcome: result.ok ? 'done' : 'failed',
    data: { id: row.id, by: row.by, ...(result.code === undefined ? {} : { code: result.code }) },
  })
  return row
}

/** @throws Fault command.unknown */
export async function commandRow(database: Database | Work, id: string): Promise<CommandRow> {
  const row = await database
    .selectFrom('commands')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
  if (row !== undefined) return row
  throw nodeFault('command.unknown', `there is no command ${id}`)
}

async function ownRow(work: Work, node: string, id: string): Promise<CommandRow | undefined> {
  return await work
    .selectFrom('commands')
    .selectAll()
    .where('id', '=', id)
    .where('node', '=', node)
    .executeTakeFirst()
}

/** @throws ZodError when another version wrote it */
export function kindOf({ command }: Pick<CommandRow, 'command'>): CommandKind {
  return z.enum(commandKinds).parse(command)
}

/** The arguments of a row as they were given. */
export function argumentsOf(row: Pick<CommandRow, 'arguments'>): Record<string, unknown> {
  return parseJsonObject(row.arguments, "the command's arguments")
}

function shownCommand(row: CommandRow): Command {
  const optional = <K extends 'finished' | 'progress' | 'output' | 'code' | 'message'>(name: K) =>
    row[name] === null ? {} : { [name]: row[name] }
  return {
    id: row.id,
    node: row.node,
    command: row.command as Command['command'], // only `orderCommand` writes it
    by: row.by,
    state: row.state as CommandState, // only this file writes it
    created: row.created,
    ...optional('finished'),
    ...optional('progress'),
    ...optional('output'),
    ...optional('code'),
    ...optional('message'),
    ...(row.result === null ? {} : { result: parseJsonObject(row.result, 'the result') }),
  }
}
