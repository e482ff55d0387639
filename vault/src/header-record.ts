import { join, resolve } from 'node:path'
import { DurableRecord, ensureDirectory, listDirectory } from '@holdfast/base'
import { z } from 'zod'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import type { HeaderFacts } from './header-format.ts'
import { vaultDirectory } from './state.ts'

// What Holdfast remembers of a header outside the volume, beside the records of state.ts:
//   STATE/vaults/UUID/header.json   the header's last known state
//   STATE/vaults/UUID/headers/      its sealed backups
//   STATE/vaults/UUID/restore/      the files of a restore under way

const recordSchema = z.object({
  v: z.literal(1),
  uuid: z.uuid(),
  device: z.string().min(1),
  header: z.string().min(1).optional(),
  /** Counts the header states that were backed up or restored; never goes down. */
  generation: z.int().min(0),
  seqid: z.int().min(0),
  digest: z.string().length(64),
  volumeKey: z.string(),
  keyslots: z.array(z.string()),
  deviceSize: z.int().min(0),
  /** Bytes from the start of the header to the data, or to the header's end: what a wipe destroys. */
  area: z.int().positive(),
  /** ISO 8601, UTC. */
  updated: z.string(),
  /** Copies that left Holdfast's reach, as far as it was told. */
  exports: z.array(z.object({ what: z.string(), time: z.string() })),
})

/** The last known state of one volume's header. */
export type HeaderRecord = z.infer<typeof recordSchema>

/** The record of one volume; reading gives undefined when there is none. */
export function headerRecord(state: string, uuid: string): DurableRecord<HeaderRecord> {
  const path = join(vaultDirectory(state, uuid), 'header.json')
  return new DurableRecord(path, (value) => recordSchema.parse(value))
}

/** Every volume of the state directory that has a record. A damaged one is a fault. */
export async function allHeaderRecords(state: string): Promise<HeaderRecord[]> {
  const names = await listDirectory(join(state, 'vaults'))
  const records = await Promise.all(names.map((uuid) => headerRecord(state, uuid).read()))
  return records.filter((record) => record !== undefined)
}

/** What a new observation of the header is remembered as. */
export interface Observation {
  volume: VolumeRef
  facts: HeaderFacts
  deviceSize: number
  /** The generation to remember; the record's own when absent. */
  generation?: number
  /** Milliseconds since 1970. */
  now: number
}

/** Bytes that a header takes up on its device, the gap before the data included. */
export function areaOf(facts: Pick<HeaderFacts, 'length' | 'dataOffset'>): number {
  return Math.max(facts.length, facts.dataOffset)
}

/**
 * Refuses a volume whose key is not the one remembered: a whole volume of somebody else's, put in the
 * place of ours under its uuid, must not be opened and filled with our data.
 * @throws Fault vault.volume_replaced
 */
export function requireSameVolumeKey(
  known: Pick<HeaderRecord, 'volumeKey'> | undefined,
  { uuid, device, volumeKey }: { uuid: string; device: string; volumeKey: string },
): void {
  if (known === undefined || known.volumeKey === '' || known.volumeKey === volumeKey) return
  throw vaultFault(
    'vault.volume_replaced',
    `${device} carries the uuid ${uuid} but has another volume key than before`,
    {
      hint: `if you encrypted it anew: holdfast vault header backup --reencrypted ${device}; if not, somebody replaced the volume`,
    },
  )
}

/**
 * Remembers the header's state now, keeping the generation from going down. Whoever calls has judged
 * that it is the volume's own.
 */
export async function rememberHeader(state: string, seen: Observation): Promise<HeaderRecord> {
  const { facts, volume } = seen
  await ensureDirectory(vaultDirectory(state, facts.uuid))
  const record = headerRecord(state, facts.uuid)
  const known = await record.read()
  const next: HeaderRecord = {
    v: 1,
    uuid: facts.uuid,
    device: resolve(volume.device),
    ...(volume.header === undefined ? {} : { header: resolve(volume.header) }),
    generation: Math.max(seen.generation ?? 0, known?.generation ?? 0),
    seqid: facts.seqid,
    digest: facts.digest,
    volumeKey: facts.volumeKey,
    keyslots: [...facts.keyslots],
    deviceSize: seen.deviceSize,
    area: areaOf(facts),
    updated: new Date(seen.now).toISOString(),
    exports: known?.exports ?? [],
  }
  await record.write(next)
  return next
}

/**
 * Notes that a copy was taken where Holdfast cannot destroy it, so that a wipe's receipt names it.
 * @param what one line for people: what the copy is and where it went
 */
export async function noteExport(
  state: string,
  uuid: string,
  what: string,
  now: number,
): Promise<void> {
  const record = headerRecord(state, uuid)
  const known = await record.read()
  if (known === undefined) return
  const time = new Date(now).toISOString()
  await record.write({ ...known, exports: [...known.exports, { what, time }] })
}
