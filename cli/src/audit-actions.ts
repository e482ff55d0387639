import { userRoutes } from '@holdfast/protocol'
import type { Context, Outcome } from './command.ts'
import { clientFrom } from './coordinator-place.ts'
import { moment } from './format.ts'
import type { Input } from './input.ts'
import { table } from './output.ts'

/** `holdfast audit list` */
export async function listAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const query = { after: input.count('after') ?? 0, limit: input.count('limit', 1, 1000) ?? 200 }
  const found = await client.call(userRoutes.audit, { query })
  const rows = found.entries.map((entry) => [
    String(entry.sequence),
    moment(entry.at),
    entry.actor,
    entry.action,
    entry.subject,
    entry.outcome,
  ])
  const head = ['NUMBER', 'AT', 'WHO', 'WHAT', 'ABOUT', 'OUTCOME']
  return { json: found, text: `${await table(head, rows)}\nhead ${found.head}` }
}

/** `holdfast audit verify` */
export async function verifyAction(input: Input, context: Context): Promise<Outcome> {
  using client = await clientFrom(input, context)
  const verdict = await client.call(userRoutes.verifyAudit)
  const { entries, intact, repairs, firstBroken } = verdict
  const repaired = repairs === 0 ? '' : `, a torn tail was repaired ${repairs} times`
  if (intact) return { json: verdict, text: `unbroken: ${entries} entries${repaired}` }
  return {
    json: verdict,
    text: `broken at entry ${firstBroken}: ${entries} entries before it are unbroken${repaired}`,
    kind: 'integrity',
  }
}
