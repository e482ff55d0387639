import type { KeyObject } from 'node:crypto'
import { type Addressee, type CommandFrame, signCommand } from '@holdfast/link'
import { argumentsOf, type CommandRow, kindOf } from './commands.ts'
import type { Database, Work } from './store.ts'

// What agents still have to be told of the queue, and what they are sent for it.

/** Commands that an agent may still have to be told. */
const openStates = ['waiting', 'sent', 'running'] as const

const shown = ['id', 'node', 'command', 'arguments', 'by', 'issue'] as const
/** What is sent of a command; not its output, which may be a million characters. */
export type OpenCommand = Pick<CommandRow, (typeof shown)[number]>

/** What these nodes still have to be told or to answer, in the order of the numbers it is signed under. */
export async function openCommands(
  database: Database | Work,
  now: number,
  nodes: readonly string[],
): Promise<OpenCommand[]> {
  if (nodes.length === 0) return []
  return await database
    .selectFrom('commands')
    .select(shown)
    .where('node', 'in', nodes)
    .where('state', 'in', openStates)
    .where('expires', '>', now)
    .orderBy('issue')
    .orderBy('id')
    .execute()
}

/** The nodes of the open commands whose number is above this one: what has been ordered since. */
export async function orderedSince(database: Database, issue: number): Promise<string[]> {
  const rows = await database
    .selectFrom('commands')
    .select('node')
    .distinct()
    .where('issue', '>', issue)
    .where('state', 'in', openStates)
    .execute()
  return rows.map(({ node }) => node)
}

/** The agent has written the command down, in this session; an earlier one than the latest says nothing. */
export async function markDelivered(
  work: Work,
  { id, node }: Pick<OpenCommand, 'id' | 'node'>,
  session: number,
): Promise<void> {
  await work
    .updateTable('commands')
    .set({ state: 'sent' })
    .where('id', '=', id)
    .where('state', '=', 'waiting')
    .where(({ exists, selectFrom }) =>
      exists(
        selectFrom('nodes').select('node').where('node', '=', node).where('session', '=', session),
      ),
    )
    .execute()
}

/** What an agent is sent for a row of the queue. @throws ZodError when another version wrote it */
export function frameOf(row: OpenCommand, key: KeyObject, to: Addressee): CommandFrame {
  const { id, by, issue } = row
  return signCommand(key, to, { id, command: kindOf(row), by, issue, arguments: argumentsOf(row) })
}
