import { resolve } from 'node:path'
import { headerPath, type VolumeRef } from './cryptsetup.ts'
import { factsOf, type HeaderCopy, searchLength, survivingCopies } from './header-format.ts'
import { readRegion, sizeOf } from './header-io.ts'
import type { Evidence } from './header-judge.ts'
import { allHeaderRecords } from './header-record.ts'
import { fateOf } from './receipt.ts'
import type { VaultDeps } from './state.ts'

/**
 * Looks at the device and the records for what tells whose header belongs there. Nothing is
 * changed: cryptsetup is not asked, because it repairs what it reads.
 */
export async function gatherEvidence(
  deps: VaultDeps,
  volume: VolumeRef,
  uuid: string,
): Promise<Evidence> {
  const path = headerPath(volume)
  const start = await readRegion(path, searchLength)
  const copies = survivingCopies(start)
  const live = liveCopy(copies)
  const device = resolve(volume.device)
  const records = await allHeaderRecords(deps.stateDirectory)
  return {
    device,
    deviceSize: await sizeOf(volume.device),
    live: live === undefined ? undefined : factsOf(live, start, path),
    remains: copies.filter((copy) => copy !== live).map((copy) => copy.uuid),
    known: records.find((record) => record.uuid === uuid),
    others: records
      .filter((record) => record.device === device && record.uuid !== uuid)
      .map((record) => record.uuid),
    fate: await fateOf(deps.stateDirectory, uuid),
  }
}

/** The header that cryptsetup would use: the primary copy, else a secondary one that it finds. */
function liveCopy(copies: readonly HeaderCopy[]): HeaderCopy | undefined {
  const [primary] = copies.filter((copy) => copy.offset === 0)
  return primary ?? copies.find((copy) => copy.offset === copy.size)
}
