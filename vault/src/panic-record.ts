import { join } from 'node:path'
import { DurableRecord, listDirectory } from '@holdfast/base'
import { z } from 'zod'

// What a wipe writes down, in STATE/panic/UUID/, apart from the volume's own records because these
// outlive them:
//   pending.json   a prepared wipe that waits for its confirmation
//   journal.json   the wipe under way; while it is there, nothing may bring the volume back
//   receipt-N.json what was done; each names the digest of the one before

export const panicLevels = [1, 2, 3] as const
/** 1: lock. 2: destroy the keys, holders can bring them back. 3: nothing brings them back. */
export type PanicLevel = (typeof panicLevels)[number]

const level = z.union([z.literal(1), z.literal(2), z.literal(3)])
const copySchema = z.object({ what: z.string(), why: z.string() })

export const stepSchema = z.discriminatedUnion('do', [
  z.object({ do: z.literal('close_mapping'), name: z.string() }),
  z.object({ do: z.literal('erase_keyslots') }),
  z.object({ do: z.literal('overwrite_header'), length: z.int().positive() }),
  z.object({ do: z.literal('destroy_images') }),
  z.object({ do: z.literal('destroy_backups') }),
  z.object({ do: z.literal('destroy_records') }),
  z.object({ do: z.literal('verify') }),
])

/** One thing a wipe does. Each may be done twice without harm. */
export type PanicStep = z.infer<typeof stepSchema>

const outcomeSchema = z.object({
  /** The step's place in the plan. */
  index: z.int().min(0),
  step: stepSchema,
  /** `nothing_to_do` when it was so already; `failed` for what a wipe goes on without. */
  result: z.enum(['done', 'nothing_to_do', 'failed']),
  evidence: z.record(z.string(), z.unknown()),
  /** ISO 8601, UTC. */
  at: z.string(),
})

/** What came of one step. */
export type StepOutcome = z.infer<typeof outcomeSchema>

const journalSchema = z.object({
  v: z.literal(1),
  /** One wipe, one id: a receipt is written once for it. */
  id: z.string(),
  uuid: z.uuid(),
  device: z.string(),
  header: z.string().optional(),
  level,
  plan: z.string().length(64),
  steps: z.array(stepSchema),
  done: z.array(outcomeSchema),
  survives: z.array(z.string()),
  unreachable: z.array(copySchema),
  started: z.string(),
  actor: z.string(),
})

/** A wipe under way. */
export type PanicJournal = z.infer<typeof journalSchema>

export const receiptSchema = z.object({
  v: z.literal(1),
  id: z.string(),
  sequence: z.int().positive(),
  /** SHA-256 of the receipt before this one, as its file is; null for the first. */
  previous: z.string().length(64).nullable(),
  uuid: z.uuid(),
  device: z.string(),
  level,
  plan: z.string().length(64),
  started: z.string(),
  finished: z.string(),
  actor: z.string(),
  steps: z.array(outcomeSchema),
  survives: z.array(z.string()),
  unreachable: z.array(copySchema),
})

/** What a wipe did, with evidence, and what it could not reach. */
export type Receipt = z.infer<typeof receiptSchema>

const pendingSchema = z.object({
  v: z.literal(1),
  level,
  plan: z.string().length(64),
  nonce: z.string(),
  /** Milliseconds since 1970. */
  expires: z.number(),
})

export type Pending = z.infer<typeof pendingSchema>

/** Where a volume's wipes are recorded, apart from its own records. */
export function panicDirectory(state: string, uuid: string): string {
  return join(state, 'panic', uuid)
}

/** The journal of the wipe under way, if any. */
export function panicJournal(state: string, uuid: string): DurableRecord<PanicJournal> {
  const path = join(panicDirectory(state, uuid), 'journal.json')
  return new DurableRecord(path, (value) => journalSchema.parse(value))
}

/** The wipe that waits for its confirmation, if any. */
export function pendingPanic(state: string, uuid: string): DurableRecord<Pending> {
  const path = join(panicDirectory(state, uuid), 'pending.json')
  return new DurableRecord(path, (value) => pendingSchema.parse(value))
}

/** Every wipe that is under way: after level 3 nothing else may tell which volume it was. */
export async function unfinishedPanics(state: string): Promise<PanicJournal[]> {
  const uuids = await listDirectory(join(state, 'panic'))
  const journals = await Promise.all(uuids.map((uuid) => panicJournal(state, uuid).read()))
  return journals.filter((journal) => journal !== undefined)
}

/** Names of the receipts of one volume, oldest first. */
export async function receiptNames(state: string, uuid: string): Promise<string[]> {
  const names = await listDirectory(panicDirectory(state, uuid))
  return names.filter((name) => /^receipt-\d{6}\.json$/.test(name))
}
