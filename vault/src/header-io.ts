import { type FileHandle, open } from 'node:fs/promises'
import { announce, codeOf, run } from '@holdfast/base'
import { vaultFault } from './faults.ts'

// Reading and overwriting ranges of a device or image file in place. A write is flushed before it
// is announced; it is not atomic, so every caller has a journal or a saved copy.

const chunkLength = 1024 * 1024

/** Bytes of a block device or file. @throws Fault vault.device_absent */
export async function sizeOf(path: string): Promise<number> {
  await using file = await openDevice(path, 'r')
  const found = await file.stat()
  if (!found.isBlockDevice()) return found.size
  const result = await run('blockdev', ['--getsize64', path])
  return Number(result.stdout.toString('utf8').trim())
}

/** Reads up to `length` bytes from `offset`; shorter at the end of the device. */
export async function readRegion(path: string, length: number, offset = 0): Promise<Buffer> {
  await using file = await openDevice(path, 'r')
  const bytes = Buffer.alloc(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return bytes.subarray(0, filled)
}

/**
 * Overwrites a range and flushes it.
 * @param make gives the bytes of one chunk; asked in order, the last chunk may be shorter
 * @throws Fault vault.device_absent, vault.write_failed
 */
export async function overwrite(
  path: string,
  offset: number,
  length: number,
  make: (offset: number, length: number) => Uint8Array,
): Promise<void> {
  await using file = await openDevice(path, 'r+')
  try {
    for (let done = 0; done < length; ) {
      const bytes = make(done, Math.min(chunkLength, length - done))
      await writeAll(file, bytes, offset + done)
      done += bytes.length
    }
    await file.sync()
  } catch (cause) {
    throw vaultFault('vault.write_failed', `cannot write to ${path}: ${codeOf(cause) ?? 'error'}`, {
      cause,
      hint: 'check the device and its cables: dmesg | tail',
    })
  }
  announce('write', `${path} ${offset}+${length}`)
}

/** Writes these bytes at `offset` and flushes them. */
export async function writeRegion(path: string, bytes: Buffer, offset = 0): Promise<void> {
  await overwrite(path, offset, bytes.length, (at, length) => bytes.subarray(at, at + length))
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done)
    done += bytesWritten
  }
}

async function openDevice(path: string, flags: 'r' | 'r+'): Promise<FileHandle> {
  try {
    return await open(path, flags)
  } catch (cause) {
    throw vaultFault('vault.device_absent', `cannot open ${path}: ${codeOf(cause) ?? 'error'}`, {
      cause,
    })
  }
}
