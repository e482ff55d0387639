import { Secret } from '@holdfast/base'
import { headerPath, headerRestore, readMetadata, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { type HeaderFacts, parseHeaderImage, withoutFreeSpace } from './header-format.ts'
import { readRegion, sizeOf, writeRegion } from './header-io.ts'

// Reading and replacing a whole LUKS2 header. Rules: every size is checked before the first byte is
// written; cryptsetup writes the header and must accept it afterwards; what is read back must be
// what was meant; on any failure the bytes that were there before are put back.

/** A header as it is on the device, free space zeroed. */
export interface HeaderImage extends Disposable {
  image: Secret
  facts: HeaderFacts
  /** Bytes of the device that holds the data. */
  deviceSize: number
}

/**
 * Reads the header of a LUKS2 volume. cryptsetup looks at it first, under its own lock, and
 * repairs a copy that a power cut tore.
 * @throws Fault vault.not_luks, vault.luks1, vault.device_absent, vault.header_damaged
 */
export async function readHeaderImage(volume: VolumeRef): Promise<HeaderImage> {
  const path = headerPath(volume)
  for (let attempt = 1; ; attempt += 1) {
    const { headerLength } = await readMetadata(volume)
    const bytes = Buffer.alloc(headerLength)
    // A detached header's file may end before its keyslot areas do: nothing is stored there.
    const found = await readRegion(path, headerLength)
    found.copy(bytes)
    found.fill(0)
    try {
      const facts = parseHeaderImage(bytes, path)
      const image = Secret.take(withoutFreeSpace(bytes, facts))
      const deviceSize = await sizeOf(volume.device)
      return { image, facts, deviceSize, [Symbol.dispose]: () => image[Symbol.dispose]() }
    } catch (error) {
      // Somebody may have been writing just then.
      if (attempt === 3) throw error
    } finally {
      bytes.fill(0)
    }
  }
}

/**
 * Refuses a header that cannot be this device's by its sizes. Nothing is written.
 * @throws Fault vault.header_size_mismatch
 */
export async function checkSizes(volume: VolumeRef, facts: HeaderFacts): Promise<void> {
  const path = headerPath(volume)
  const [area, data] = [await sizeOf(path), await sizeOf(volume.device)]
  const detached = path !== volume.device
  // cryptsetup would lengthen a file that is too short, and then overrun what it is part of.
  if (area < facts.length) {
    throw mismatch(`the header takes ${facts.length} bytes, ${path} has ${area}`)
  }
  if (!detached && facts.dataOffset < facts.length) {
    throw mismatch(`the header would overwrite data that begins at byte ${facts.dataOffset}`)
  }
  if (data < facts.dataOffset + 512) {
    throw mismatch(`the data begins at byte ${facts.dataOffset}, ${volume.device} has ${data}`)
  }
}

/**
 * Replaces the header. On any failure the bytes before are restored and the fault says so.
 * @param image a whole header of `facts.length` bytes
 * @param saved what to put back on failure; what is there now, if absent
 * @throws Fault vault.header_size_mismatch, vault.cryptsetup_failed, vault.write_failed,
 *   vault.header_damaged
 */
export async function writeHeaderImage(
  volume: VolumeRef,
  image: Secret,
  facts: HeaderFacts,
  saved?: Secret,
): Promise<void> {
  await checkSizes(volume, facts)
  const path = headerPath(volume)
  using before = saved?.clone() ?? Secret.take(await readRegion(path, facts.length))
  try {
    // The header's own file or device is the target, detached or not.
    await headerRestore({ device: path }, image)
    using after = Secret.take(await readRegion(path, facts.length))
    if (!after.equals(image)) {
      throw vaultFault('vault.header_damaged', `${path} does not read back what was written to it`)
    }
    await readMetadata(volume)
  } catch (error) {
    await writeRegion(path, before.reveal())
    throw error
  }
}

function mismatch(reason: string): Error {
  return vaultFault('vault.header_size_mismatch', `this header does not fit: ${reason}`, {
    hint: 'check the device and the backup; nothing was written',
  })
}
