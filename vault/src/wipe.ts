import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, shredDurable } from '@holdfast/base'
import { vaultFault } from './faults.ts'
import { searchLength, survivingCopies } from './header-format.ts'
import { overwrite, readRegion, sizeOf } from './header-io.ts'
import { isPacked } from './header-pack.ts'

// What a wipe does to bytes. Overwriting reaches what the device shows; flash and copy-on-write
// storage may keep old blocks, which every receipt says.

const chunkLength = 1024 * 1024
const luksMagics = [Buffer.from('LUKS\xba\xbe', 'latin1'), Buffer.from('SKUL\xba\xbe', 'latin1')]

/** Evidence that a range holds nothing but fresh noise. */
export interface Overwritten {
  offset: 0
  length: number
  /** SHA-256 of what was written, found again when read back. */
  sha256: string
}

/**
 * Overwrites the first `length` bytes with noise and reads them back.
 * @throws Fault vault.write_failed, vault.device_absent
 */
export async function overwriteStart(path: string, length: number): Promise<Overwritten> {
  const bounded = Math.min(length, await sizeOf(path))
  const written = createHash('sha256')
  await overwrite(path, 0, bounded, (_, size) => {
    const noise = randomBytes(size)
    written.update(noise)
    return noise
  })
  const sha256 = written.digest('hex')
  const found = createHash('sha256')
  for (let at = 0; at < bounded; at += chunkLength) {
    found.update(await readRegion(path, Math.min(chunkLength, bounded - at), at))
  }
  if (found.digest('hex') !== sha256) {
    throw vaultFault('vault.write_failed', `${path} does not read back what was written to it`)
  }
  return { offset: 0, length: bounded, sha256 }
}

/** How many intact header copies a device still shows. */
export async function intactCopies(path: string): Promise<number> {
  return survivingCopies(await readRegion(path, searchLength)).length
}

/** Every file below a directory, left-over temporary ones included; none when it is not there. */
export async function filesBelow(directory: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true, recursive: true })
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw error
  }
}

/** True for a file that holds a header in the clear: it begins like one, or carries a metadata copy. */
export async function holdsHeader(path: string): Promise<boolean> {
  const bytes = await readFile(path).catch(() => Buffer.alloc(0))
  return isPacked(bytes) || luksMagics.some((magic) => bytes.includes(magic))
}

/** Overwrites and removes files. Gives the paths of those that were there. */
export async function shredAll(paths: readonly string[]): Promise<string[]> {
  const shredded: string[] = []
  for (const path of paths) if (await shredDurable(path)) shredded.push(path)
  return shredded
}
