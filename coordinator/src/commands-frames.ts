import type { KeyObject } from 'node:crypto'
import { type Clock, canonicalJson } from '@holdfast/base'
import { type Addressee, signCommand } from '@holdfast/link'
import { type CommandKind, commandKinds } from '@holdfast/protocol'
import { type CoordinatorFrame, coordinatorFrameSchema } from '@holdfast/protocol/frames'
import { argumentsOf, type CommandRow } from './commands.ts'
import type { Work } from './store.ts'

// What an agent is sent for a row of the queue. Besides commands that people give, the queue carries
// the coordinator's own errands: making and retiring a ward's exchange key, and moving a ward to new
// guardians. They need the same delivery: written down first, sent until answered, by any instance.

export type Errand = Extract<CoordinatorFrame, { kind: 'ward' | 'reshare' }>

const week = 7 * 24 * 60 * 60_000

/** Queues an errand under its own id; the same id a second time changes nothing. */
export async function orderErrand(
  work: Work,
  clock: Clock,
  node: string,
  errand: Errand,
): Promise<void> {
  const { kind, id, ...rest } = errand
  const now = clock.now()
  await work
    .insertInto('commands')
    .values({
      id,
      node,
      command: kind,
      arguments: canonicalJson(rest),
      by: 'coordinator',
      state: 'waiting',
      created: now,
      expires: now + week,
    })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute()
}

/** True for rows that people ordered; errands are not shown among commands. */
export function isCommand(kind: string): kind is CommandKind {
  return (commandKinds as readonly string[]).includes(kind)
}

/** The frame of a row. @throws ZodError when the row was written by another version */
export function frameOf(row: CommandRow, key: KeyObject, to: Addressee): CoordinatorFrame {
  const given = argumentsOf(row)
  if (!isCommand(row.command))
    return coordinatorFrameSchema.parse({ kind: row.command, id: row.id, ...given })
  const { id, command, by } = row
  return signCommand(key, to, { id, command, by, arguments: given })
}
