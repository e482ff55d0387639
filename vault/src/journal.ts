import { join } from 'node:path'
import { DurableRecord } from '@holdfast/base'
import { z } from 'zod'
import type { Plan } from './plan.ts'
import type { Vault } from './state.ts'
import type { Purpose } from './token.ts'

// The journal of the one change that may be under way on a volume. It holds nothing that the header
// itself does not show to anybody who reads the disk: tokens are sealed, passphrases never enter it.

const json = z.record(z.string(), z.unknown())
const entrySchema = z.object({
  v: z.literal(1),
  operation: z.string(),
  at: z.string(),
  mode: z.enum(['beside', 'in_place']),
  purpose: z.enum(['automatic', 'recovery', 'owner']),
  /** Salts of all keyslots before the change, by number. */
  before: z.record(z.string(), z.string()),
  added: z
    .object({ keyslot: z.int(), token: z.int(), json, salt: z.string().optional() })
    .optional(),
  removed: z
    .object({
      keyslot: z.int(),
      salt: z.string(),
      token: z.int().optional(),
      json: json.optional(),
    })
    .optional(),
  /** Once true the change is finished, not undone. */
  committed: z.boolean(),
})

export type JournalEntry = z.infer<typeof entrySchema>

/** The journal of a volume; empty when no change is under way. */
export function journalOf(vault: Vault): DurableRecord<JournalEntry> {
  return new DurableRecord(join(vault.directory, 'journal.json'), (value) =>
    entrySchema.parse(value),
  )
}

/** The entry that a change begins with. */
export function journalEntry(
  plan: Plan,
  facts: { operation: string; at: string; purpose: Purpose; before: Record<string, string> },
): JournalEntry {
  const { added, removed, mode } = plan
  return {
    v: 1,
    ...facts,
    mode,
    ...(added === undefined ? {} : { added }),
    ...(removed === undefined ? {} : { removed: withoutUndefined(removed) }),
    committed: false,
  }
}

function withoutUndefined(removed: NonNullable<Plan['removed']>) {
  const { token, ...rest } = removed
  return { ...rest, ...(token === undefined ? {} : { token }) }
}
