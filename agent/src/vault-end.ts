import { join } from 'node:path'
import { DurableRecord, isFault, listDirectory } from '@holdfast/base'
import type { Policy } from '@holdfast/seal'
import {
  describePanic,
  executePanic,
  listBackups,
  luksType,
  type PanicLevel,
  type PanicPlan,
  preparePanic,
  type Receipt,
  readReceipts,
  readUuid,
  resumePanic,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import { z } from 'zod'

// What an end does to the disk. The vault's own journal carries a wipe over a power cut; what is here
// finds the volume of which the header may be gone already, and does no order twice: a receipt names
// the command that it was written for.

export interface VaultEnd {
  deps: VaultDeps
  volume: VolumeRef
  /** The holders' policy, for a last sealed backup of the header before panic 2. */
  recovery: Policy | undefined
}

const recordSchema = z.looseObject({ state: z.enum(['creating', 'ready']) })

/** The record that this node has of a volume, if any: only such a volume is its own. */
export async function recordOf(
  stateDirectory: string,
  uuid: string,
): Promise<'creating' | 'ready' | undefined> {
  const path = join(stateDirectory, 'vaults', uuid, 'record.json')
  const record = new DurableRecord(path, (value) => recordSchema.parse(value))
  return (await record.read())?.state
}

/**
 * Carries an order out and gives its receipt; undefined when there is nothing of this node's to be
 * ended. What an earlier order has begun is finished first.
 */
export async function endVault(
  end: VaultEnd,
  level: PanicLevel,
  command: string,
): Promise<Receipt | undefined> {
  const deps = { ...end.deps, actor: actorOf(command) }
  const uuids = await knownVolumes(deps.stateDirectory)
  for (const uuid of uuids) await resumePanic(deps, uuid)
  const present = await presentVolume(end)
  if (present === undefined && level === 1) return undefined
  // With the header gone, every volume that this disk has held is meant.
  const meant =
    present === undefined ? uuids : level === 3 ? [present, ...others(uuids, present)] : [present]
  let receipt: Receipt | undefined
  for (const uuid of meant) receipt ??= await endOne(end, deps, { uuid, level, command, present })
  return receipt
}

const others = (uuids: readonly string[], one: string) => uuids.filter((uuid) => uuid !== one)

async function endOne(
  { volume, recovery }: VaultEnd,
  deps: VaultDeps,
  order: { uuid: string; level: PanicLevel; command: string; present: string | undefined },
): Promise<Receipt | undefined> {
  const { uuid, level, command, present } = order
  const receipts = await receiptsOf(deps, uuid)
  const done = receipts.find(({ actor, level: its }) => actor === actorOf(command) && its === level)
  if (done !== undefined) return done
  const gone = present !== uuid
  const harder = receipts.findLast((receipt) => receipt.level > 1 && receipt.level >= level)
  if (gone && harder !== undefined) return harder
  if (gone && level < 3) return undefined
  // A volume that stands beside the present one has no header here that could be overwritten.
  if (gone && present !== undefined) return undefined
  const { code } = await preparePanic(deps, volume, level, {
    uuid,
    ...(recovery === undefined ? {} : { policy: recovery }),
  })
  return (await executePanic(deps, volume, uuid, code)).receipt
}

/** What an order would destroy and what survives it; undefined when there is no volume. */
export async function describeEnd(
  { deps, volume }: VaultEnd,
  level: PanicLevel,
): Promise<PanicPlan | undefined> {
  const uuid =
    (await presentVolume({ deps, volume })) ?? (await knownVolumes(deps.stateDirectory)).at(-1)
  if (uuid === undefined) return undefined
  return await describePanic(deps, volume, level, uuid)
}

/**
 * The receipt that was written for a command; the last of a destruction when this one found nothing left
 * to destroy, because another had begun and gone further.
 */
export async function receiptFor(
  { deps, volume }: Pick<VaultEnd, 'deps' | 'volume'>,
  command: string,
): Promise<Receipt | undefined> {
  let destruction: Receipt | undefined
  for (const uuid of await knownVolumes(deps.stateDirectory)) {
    const receipts = await receiptsOf(deps, uuid)
    const found = receipts.findLast(({ actor }) => actor === actorOf(command))
    if (found !== undefined) return found
    destruction = receipts.findLast(({ level }) => level > 1) ?? destruction
  }
  return (await presentVolume({ deps, volume })) === undefined ? destruction : undefined
}

/** True when the last thing that was done to the volume's keys is panic 2. */
export async function wasPanicked(
  deps: Pick<VaultDeps, 'stateDirectory'>,
  uuid: string,
): Promise<boolean> {
  const last = (await receiptsOf(deps, uuid)).findLast(({ level }) => level > 1)
  return last?.level === 2
}

/** Volumes that panic 2 has wiped and of which there is a sealed header to bring back. */
export async function awaitingHeaders(deps: Pick<VaultDeps, 'stateDirectory'>): Promise<string[]> {
  const waiting: string[] = []
  for (const uuid of await knownVolumes(deps.stateDirectory)) {
    if (!(await wasPanicked(deps, uuid))) continue
    if ((await listBackups(deps.stateDirectory, uuid)).backups.length > 0) waiting.push(uuid)
  }
  return waiting
}

const actorOf = (command: string) => `agent ${command}`

async function receiptsOf(
  { stateDirectory }: Pick<VaultDeps, 'stateDirectory'>,
  uuid: string,
): Promise<Receipt[]> {
  try {
    return (await readReceipts(stateDirectory, uuid)).map(({ receipt }) => receipt)
  } catch (error) {
    if (isFault(error, 'base.file_absent')) return []
    throw error
  }
}

async function presentVolume({ deps, volume }: Pick<VaultEnd, 'deps' | 'volume'>) {
  if ((await luksType(volume)) !== 'luks2') return undefined
  const uuid = await readUuid(volume)
  return (await recordOf(deps.stateDirectory, uuid)) === undefined ? undefined : uuid
}

/** Volumes that this node has, or had: after level 3 only the receipts are left. */
async function knownVolumes(stateDirectory: string): Promise<string[]> {
  const names = await Promise.all(
    ['vaults', 'panic'].map(async (folder) => {
      try {
        return await listDirectory(join(stateDirectory, folder))
      } catch (error) {
        if (isFault(error, 'base.file_absent')) return []
        throw error
      }
    }),
  )
  return [...new Set(names.flat())]
}
