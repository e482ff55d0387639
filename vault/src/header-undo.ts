import { Secret } from '@holdfast/base'
import { headerPath, type VolumeRef } from './cryptsetup.ts'
import { readRegion, writeRegion } from './header-io.ts'
import type { Metadata } from './metadata.ts'

// Puts a header back, byte for byte, when a change of it fails before it is proven. The keyslot
// areas go first, then the second copy of the metadata, then the first: whenever the power fails
// in between, one copy whose checksum holds is there, and the ways in that it names still open.

const block = 4096

/** A header's bytes as they are, in memory only. They hold keyslot material. */
export async function saveHeader(volume: VolumeRef, metadata: Metadata): Promise<Secret> {
  return Secret.take(await readRegion(headerPath(volume), metadata.headerLength))
}

/** Writes back whatever differs from the saved header. Says whether anything did. */
export async function putBack(
  volume: VolumeRef,
  metadata: Metadata,
  saved: Secret,
): Promise<boolean> {
  const path = headerPath(volume)
  using current = await saveHeader(volume, metadata)
  const half = metadata.keyslotsArea.offset / 2
  const length = saved.length
  const regions = [
    [metadata.keyslotsArea.offset, length],
    [half, metadata.keyslotsArea.offset],
    [0, half],
  ] as const
  let changed = false
  for (const [start, end] of regions) {
    const range = differing(saved.reveal(), current.reveal(), start, end)
    if (range === undefined) continue
    changed = true
    await writeRegion(path, saved.reveal().subarray(range.start, range.end), range.start)
  }
  return changed
}

/** The smallest range of whole blocks that holds every difference. */
function differing(a: Buffer, b: Buffer, start: number, end: number) {
  let first: number | undefined
  let last = start
  for (let at = start; at < end; at += block) {
    const stop = Math.min(at + block, end)
    if (a.subarray(at, stop).equals(b.subarray(at, stop))) continue
    first ??= at
    last = stop
  }
  return first === undefined ? undefined : { start: first, end: last }
}
