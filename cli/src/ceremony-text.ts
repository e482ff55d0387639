import type { ceremonySchema } from '@holdfast/protocol'
import type { z } from 'zod'
import type { Context } from './command.ts'
import { answerCommand, byHolder, fleetHere } from './fleet-here.ts'
import { moment } from './format.ts'
import { table } from './output.ts'

export type Ceremony = z.output<typeof ceremonySchema>

/** A ceremony for people: how far it is, who has answered and who has not, and what is next. */
export async function ceremonyText(ceremony: Ceremony, context: Context): Promise<string> {
  const { id, kind, state, digest, threshold, holders, answered, rejected, expires } = ceremony
  const rows = holders.map((name) => {
    const answer = answered.find(({ holder }) => holder === name)
    const refusal = rejected.findLast(({ holder }) => holder === name)
    if (answer !== undefined) return [name, 'answered', moment(answer.at)]
    if (refusal !== undefined) return [name, `refused: ${refusal.code}`, moment(refusal.at)]
    return [name, 'not yet', '']
  })
  const missing = Math.max(threshold - answered.length, 0)
  const open = state === 'open'
  const next = open && missing > 0 ? [byHolder(answerCommand, await fleetHere(context))] : []
  const progress = open ? `${missing} more needed, until ${moment(expires)}` : state
  return [
    `${kind} ${id}: ${answered.length} of ${threshold}, ${progress}`,
    `digest ${digest}`,
    await table(['HOLDER', 'ANSWER', 'AT'], rows),
    ...next.map((command) => `next: ${command}`),
  ].join('\n')
}
