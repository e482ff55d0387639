import { DurableRecord } from '@holdfast/base'
import { z } from 'zod'
import { lockDirectory, statePath } from './state.ts'

// Last use per key, from real recoveries. It decides whether a hidden key may be destroyed, so it is
// durable, and merged rather than replaced: several servers may serve one directory.

const useSchema = z.strictObject({ last: z.number(), count: z.number() })
const usageSchema = z.strictObject({ version: z.literal(1), keys: z.record(z.string(), useSchema) })

/** Last use in milliseconds since 1970 and number of successful recoveries, by thumbprint. */
export type Usage = Readonly<Record<string, z.infer<typeof useSchema>>>

function usageRecord(directory: string): DurableRecord<z.infer<typeof usageSchema>> {
  return new DurableRecord(statePath(directory, 'usage.json'), (value) => usageSchema.parse(value))
}

/** @throws Fault base.record_damaged */
export async function readUsage(directory: string): Promise<Usage> {
  return (await usageRecord(directory).read())?.keys ?? {}
}

/** The later of two last uses, and the sum of the counts, for every key of either. */
export function mergeUsage(a: Usage, b: Usage): Usage {
  const merged: Record<string, { last: number; count: number }> = { ...a }
  for (const [kid, use] of Object.entries(b)) {
    const other = merged[kid]
    merged[kid] =
      other === undefined
        ? use
        : { last: Math.max(use.last, other.last), count: use.count + other.count }
  }
  return merged
}

/** Adds to the durable record what was used since. */
export async function addUsage(directory: string, added: Usage): Promise<void> {
  if (Object.keys(added).length === 0) return
  await using _ = await lockDirectory(directory, 'usage')
  const keys = mergeUsage(await readUsage(directory), added)
  await usageRecord(directory).write({ version: 1, keys: { ...keys } })
}

/** Collects uses in memory and writes them at most every `interval` milliseconds, and when told. */
export class UsageRecorder implements AsyncDisposable {
  readonly #directory: string
  readonly #interval: number
  readonly #onError: (error: unknown) => void
  #pending = new Map<string, { last: number; count: number }>()
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(directory: string, interval: number, onError: (error: unknown) => void) {
    this.#directory = directory
    this.#interval = interval
    this.#onError = onError
  }

  /** Notes one successful recovery with the key. */
  note(kid: string, at: number): void {
    const use = this.#pending.get(kid)
    if (use === undefined) this.#pending.set(kid, { last: at, count: 1 })
    else {
      use.last = Math.max(use.last, at)
      use.count += 1
    }
    this.#timer ??= setTimeout(() => void this.flush(), this.#interval).unref()
  }

  /** Makes everything noted so far durable. What could not be written is kept for the next time. */
  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    return this.#writing
  }

  async #write(): Promise<void> {
    const batch = this.#pending
    if (batch.size === 0) return
    this.#pending = new Map()
    try {
      await addUsage(this.#directory, Object.fromEntries(batch))
    } catch (error) {
      const kept = mergeUsage(Object.fromEntries(batch), Object.fromEntries(this.#pending))
      this.#pending = new Map(Object.entries(kept))
      this.#onError(error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush()
  }
}
