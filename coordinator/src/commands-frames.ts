import type { KeyObject } from 'node:crypto'
import { type Addressee, type CommandFrame, signCommand } from '@holdfast/link'
import { argumentsOf, type CommandRow, kindOf } from './commands.ts'

/** What an agent is sent for a row of the queue. @throws ZodError when another version wrote it */
export function frameOf(row: CommandRow, key: KeyObject, to: Addressee): CommandFrame {
  const { id, by, issue } = row
  return signCommand(key, to, { id, command: kindOf(row), by, issue, arguments: argumentsOf(row) })
}
