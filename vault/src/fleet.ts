import { join } from 'node:path'
import { DurableRecord, ensureDirectory, type Fault, isFault } from '@holdfast/base'
import type { Inspection, Policy } from '@holdfast/seal'
import { z } from 'zod'
import { readInventory } from './apply.ts'
import { readUuid, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { bindingsOf, type Slot } from './inventory.ts'
import { boundSlot, changing, proveSlot, replaceBinding } from './rekey.ts'
import type { VaultDeps } from './state.ts'

export interface FleetRekey {
  /** Names this piece of work: running it again under the same name goes on where it stopped. */
  id: string
  volumes: readonly VolumeRef[]
  /** Only bindings that store a key with one of these thumbprints, exchange or signing. */
  affected?: readonly string[]
  /** The new policy of a binding; the same as before when absent. */
  change?: (policy: Policy) => Policy
  /** How many volumes at a time. Default 4. */
  concurrency?: number
  signal?: AbortSignal
  timeout?: number
  onEvent?: (event: FleetEvent) => void
}

export interface FleetEvent {
  device: string
  state: 'started' | 'rekeyed' | 'unaffected' | 'done_before' | 'failed'
  fault?: Fault
  finished: number
  total: number
}

export interface FleetResult {
  id: string
  rekeyed: readonly { device: string; uuid: string; keyslots: readonly (readonly number[])[] }[]
  /** Nothing to do, now or since an earlier run. */
  unaffected: readonly string[]
  /** What still depends on the old keys. */
  failed: readonly { device: string; fault: Fault }[]
}

const progressSchema = z.object({
  v: z.literal(1),
  id: z.string(),
  /** When each volume was finished, by UUID, ISO 8601. */
  done: z.record(z.string(), z.string()),
})

type Outcome =
  | { state: 'rekeyed'; uuid: string; keyslots: number[][] }
  | { state: 'unaffected' | 'done_before' }

/**
 * Rekeys many volumes, a few at a time. Each is its own transaction; a failure stops nothing and is
 * listed. Progress is durable: a second run under the same id skips what is done.
 */
export async function rekeyFleet(deps: VaultDeps, work: FleetRekey): Promise<FleetResult> {
  const progress = await Progress.open(deps.stateDirectory, work.id)
  const rekeyed: FleetResult['rekeyed'][number][] = []
  const unaffected: string[] = []
  const failed: FleetResult['failed'][number][] = []
  let finished = 0
  const tell = (event: Pick<FleetEvent, 'device' | 'state' | 'fault'>) =>
    work.onEvent?.({ ...event, finished, total: work.volumes.length })
  await inParallel(work.volumes, work.concurrency ?? 4, async (volume) => {
    work.signal?.throwIfAborted()
    const { device } = volume
    tell({ device, state: 'started' })
    try {
      const outcome = await rekeyOne(deps, volume, work, progress)
      if (outcome.state === 'rekeyed') {
        rekeyed.push({ device, uuid: outcome.uuid, keyslots: outcome.keyslots })
      } else unaffected.push(device)
      finished += 1
      tell({ device, state: outcome.state })
    } catch (error) {
      work.signal?.throwIfAborted()
      const fault = isFault(error) ? error : vaultFault('vault.internal', `${device}: ${error}`)
      failed.push({ device, fault })
      finished += 1
      tell({ device, state: 'failed', fault })
    }
  })
  // As they were given, whichever was done first.
  const places = new Map(work.volumes.map(({ device }, place) => [device, place]))
  const inOrder = <T>(list: readonly T[], deviceOf: (each: T) => string) =>
    list.toSorted((a, b) => (places.get(deviceOf(a)) ?? 0) - (places.get(deviceOf(b)) ?? 0))
  return {
    id: work.id,
    rekeyed: inOrder(rekeyed, ({ device }) => device),
    unaffected: inOrder(unaffected, (device) => device),
    failed: inOrder(failed, ({ device }) => device),
  }
}

async function rekeyOne(
  deps: VaultDeps,
  volume: VolumeRef,
  work: FleetRekey,
  progress: Progress,
): Promise<Outcome> {
  const uuid = await readUuid(volume)
  if (progress.isDone(uuid)) return { state: 'done_before' }
  const { signal, timeout, affected, change } = work
  const options = {
    ...(signal === undefined ? {} : { signal }),
    ...(timeout === undefined ? {} : { timeout }),
  }
  const keyslots = await changing(deps, volume, async (vault) => {
    const moved: number[][] = []
    const slots = bindingsOf(await readInventory(vault)).filter((slot) => touches(slot, affected))
    for (const { keyslot } of slots) {
      const inventory = await readInventory(vault)
      const slot = boundSlot(inventory, keyslot)
      using proven = await proveSlot(vault, slot, options)
      const policy = change?.(slot.policy) ?? slot.policy
      const replacement = { policy, operation: 'rekey', proven }
      const result = await replaceBinding(vault, inventory, slot, replacement, options)
      moved.push([keyslot, ...(result.keyslot === undefined ? [] : [result.keyslot])])
    }
    return moved
  })
  await progress.finish(uuid, new Date((deps.clock ?? { now: Date.now }).now()).toISOString())
  return keyslots.length === 0 ? { state: 'unaffected' } : { state: 'rekeyed', uuid, keyslots }
}

/** True when the binding stores one of these keys. Pure. */
function touches(slot: Slot, thumbprints: readonly string[] | undefined): boolean {
  if (thumbprints === undefined) return true
  return slot.inspection !== undefined && stores(slot.inspection, thumbprints)
}

function stores(inspection: Inspection, thumbprints: readonly string[]): boolean {
  const own = (inspection.keys ?? []).some((key) => thumbprints.includes(key.thumbprint))
  return own || (inspection.children ?? []).some((child) => stores(child, thumbprints))
}

/** Which volumes of one piece of work are finished. Writes go one after another. */
class Progress {
  readonly #record: DurableRecord<z.infer<typeof progressSchema>>
  #state: z.infer<typeof progressSchema>
  #last: Promise<void> = Promise.resolve()

  private constructor(
    record: DurableRecord<z.infer<typeof progressSchema>>,
    state: z.infer<typeof progressSchema>,
  ) {
    this.#record = record
    this.#state = state
  }

  static async open(stateDirectory: string, id: string): Promise<Progress> {
    if (!/^[\w-]{1,64}$/.test(id)) {
      throw vaultFault('vault.name_invalid', `"${id.slice(0, 80)}" cannot name a piece of work`, {
        hint: 'use letters, digits, - and _',
      })
    }
    const folder = join(stateDirectory, 'fleet')
    await ensureDirectory(folder)
    const record = new DurableRecord(join(folder, `${id}.json`), (value) =>
      progressSchema.parse(value),
    )
    return new Progress(record, (await record.read()) ?? { v: 1, id, done: {} })
  }

  isDone(uuid: string): boolean {
    return this.#state.done[uuid] !== undefined
  }

  async finish(uuid: string, at: string): Promise<void> {
    this.#state = { ...this.#state, done: { ...this.#state.done, [uuid]: at } }
    const write = this.#last.then(() => this.#record.write(this.#state))
    this.#last = write.catch(() => undefined)
    await write
  }
}

async function inParallel<T>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values()
  const worker = async () => {
    for (const item of queue) await work(item)
  }
  await Promise.all(Array.from({ length: Math.max(1, width) }, worker))
}
