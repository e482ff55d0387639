import { join } from 'node:path'
import {
  type Clock,
  DurableRecord,
  ensureDirectory,
  isFault,
  lock,
  systemClock,
} from '@holdfast/base'
import { z } from 'zod'
import { stateFolder } from './directory.ts'
import type { StoredKey } from './key.ts'

// What Holdfast knows about a key directory beyond the key files: since when a key is hidden, which
// are compromised, which were destroyed, whether recoveries are on hold. One record, replaced whole
// under a lock, so that a server and a command may both change it.

const mark = z.strictObject({ at: z.number(), note: z.string() })
const destruction = z.strictObject({
  at: z.number(),
  reason: z.string(),
  prefix: z.string(),
  use: z.enum(['signing', 'exchange']),
  crv: z.string(),
})

const stateSchema = z.strictObject({
  version: z.literal(1),
  /** Recoveries are answered 503 while this is set. */
  hold: z.strictObject({ at: z.number(), reason: z.string() }).optional(),
  /** When each key was hidden, milliseconds since 1970, by thumbprint. */
  hidden: z.record(z.string(), z.number()),
  /** Keys whose material may be known to others, by thumbprint. */
  compromised: z.record(z.string(), mark),
  /** Keys that are gone for good and are never loaded again, by thumbprint. */
  destroyed: z.record(z.string(), destruction),
})

export type KeyState = z.infer<typeof stateSchema>

export const emptyState: KeyState = { version: 1, hidden: {}, compromised: {}, destroyed: {} }

/** The path of a file in the state folder. */
export function statePath(directory: string, name: string): string {
  return join(directory, stateFolder, name)
}

function stateRecord(directory: string): DurableRecord<KeyState> {
  return new DurableRecord(statePath(directory, 'state.json'), (value) => stateSchema.parse(value))
}

/** Parses a state document from elsewhere, such as a backup. */
export function parseState(value: unknown): KeyState {
  return stateSchema.parse(value)
}

/** @throws Fault base.record_damaged */
export async function readState(directory: string): Promise<KeyState> {
  return (await stateRecord(directory).read()) ?? emptyState
}

/** Changes the state under the directory's lock; `change` returns the new state. */
export async function changeState(
  directory: string,
  change: (state: KeyState) => KeyState,
): Promise<KeyState> {
  await using _ = await lockDirectory(directory, 'state')
  const next = change(await readState(directory))
  await stateRecord(directory).write(next)
  return next
}

/**
 * Takes one of the directory's locks, waiting up to ten seconds for another command to finish.
 * `change` is for whole operations, `state` for one record.
 */
export async function lockDirectory(
  directory: string,
  name: 'change' | 'state' | 'usage',
  clock: Clock = systemClock,
): Promise<AsyncDisposable> {
  await ensureDirectory(join(directory, stateFolder))
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await lock(statePath(directory, `${name}.lock`), `the key directory ${directory}`)
    } catch (error) {
      if (!isFault(error, 'base.locked') || attempt === 200) throw error
      await clock.sleep(50)
    }
  }
}

/** Since when a key is hidden: as recorded, or as its file's change time tells. */
export function hiddenSince(key: StoredKey, state: KeyState): number | undefined {
  return key.hidden ? (state.hidden[key.kid] ?? key.changed) : undefined
}
