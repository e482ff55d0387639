import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, unlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { announce } from './effect.ts'
import { isFault } from './fault.ts'
import { baseFault } from './faults.ts'

// Rules of this file: a durable write is complete or absent after a crash at any line. The bytes go
// to a temporary name in the same directory, are flushed, take the final name, and the directory
// is flushed; only then is the effect announced. Temporary names start with `.tmp-`.

const temporaryPrefix = '.tmp-'
const shredStep = 1024 * 1024

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/**
 * Makes `path` hold exactly `bytes`, atomically and durably. `mode` defaults to 0600. What comes in
 * parts is written as it comes; when their source fails, nothing has the name and its fault is thrown.
 */
export async function writeDurable(
  path: string,
  bytes: Uint8Array | string | AsyncIterable<Uint8Array | string>,
  options: { mode?: number } = {},
): Promise<void> {
  const folder = dirname(path)
  const temporary = join(
    folder,
    `${temporaryPrefix}${basename(path)}-${randomBytes(6).toString('hex')}`,
  )
  try {
    const file = await open(temporary, 'wx', options.mode ?? 0o600)
    try {
      await file.writeFile(bytes)
      await file.chmod(options.mode ?? 0o600)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (cause) {
    await unlink(temporary).catch(() => undefined)
    throw isFault(cause) ? cause : fileFault(path, cause)
  }
  await syncDirectory(folder)
  announce('write', path)
}

/**
 * Appends one record and flushes it. A crash may leave a part of the record at the end: readers
 * must bear with a last line that is cut off.
 */
export async function appendDurable(path: string, text: string, mode = 0o600): Promise<void> {
  const file = await openOrFault(path, 'a', mode)
  try {
    const { size } = await file.stat()
    await file.appendFile(text)
    await file.sync()
    if (size === 0) await syncDirectory(dirname(path)) // the name itself may be new
  } catch (cause) {
    throw fileFault(path, cause)
  } finally {
    await file.close()
  }
  announce('append', path)
}

/** Removes a file if it is there, durably. Says whether it was. */
export async function removeDurable(path: string): Promise<boolean> {
  try {
    await unlink(path)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return false
    throw fileFault(path, cause)
  }
  await syncDirectory(dirname(path))
  announce('remove', path)
  return true
}

/** Renames within one directory, durably. */
export async function renameDurable(from: string, to: string): Promise<void> {
  try {
    await rename(from, to)
  } catch (cause) {
    throw fileFault(from, cause)
  }
  await syncDirectory(dirname(to))
  announce('rename', to)
}

/**
 * Overwrites a file's content in place before removing it. Flash and journals may keep old blocks.
 * Of a symbolic link only the link goes.
 */
export async function shredDurable(path: string): Promise<boolean> {
  let file: FileHandle
  try {
    file = await open(path, constants.O_RDWR | constants.O_NOFOLLOW)
  } catch (cause) {
    // A read-only mode (0440 key files) does not stop root; others fall through to plain removal.
    if (codeOf(cause) === 'ENOENT') return false
    if (['EACCES', 'ELOOP'].includes(codeOf(cause) ?? '')) return removeDurable(path)
    throw fileFault(path, cause)
  }
  try {
    const { size } = await file.stat()
    for (let at = 0; at < size; at += shredStep) {
      // `writeFile` on a handle goes on from where the last one ended and never writes short.
      await file.writeFile(randomBytes(Math.min(shredStep, size - at)))
    }
    await file.sync()
  } catch (cause) {
    throw fileFault(path, cause)
  } finally {
    await file.close()
  }
  return removeDurable(path)
}

/**
 * Reads a whole file of at most `limit` bytes; a pipe or another file without a size too.
 * @throws Fault base.file_absent, base.file_unreadable, base.file_too_large
 */
export async function readBounded(path: string, limit: number): Promise<Buffer> {
  const file = await openOrFault(path, 'r')
  let chunk: Buffer = Buffer.alloc(0)
  try {
    const { size } = await file.stat()
    chunk = Buffer.alloc(Math.min(limit, Math.max(size, 4096)) + 1)
    let length = 0
    while (length <= limit) {
      if (length === chunk.length) chunk = grown(chunk, limit + 1)
      const { bytesRead } = await file.read(chunk, length, chunk.length - length, null)
      length += bytesRead
      if (bytesRead === 0) return Buffer.from(chunk.subarray(0, length))
    }
    throw baseFault('base.file_too_large', `${path} is larger than ${limit} bytes`)
  } catch (cause) {
    throw isFault(cause) ? cause : fileFault(path, cause)
  } finally {
    chunk.fill(0)
    await file.close()
  }
}

/** Twice the room, at most `most`; the old bytes, which may be secret, are wiped. */
function grown(chunk: Buffer, most: number): Buffer {
  const larger = Buffer.alloc(Math.min(most, chunk.length * 2))
  chunk.copy(larger)
  chunk.fill(0)
  return larger
}

async function openOrFault(path: string, flags: string, mode?: number): Promise<FileHandle> {
  try {
    return await open(path, flags, mode)
  } catch (cause) {
    throw fileFault(path, cause)
  }
}

/** Reads a file that may not be there. */
export async function readIfPresent(path: string, limit: number): Promise<Buffer | undefined> {
  try {
    return await readBounded(path, limit)
  } catch (error) {
    if (codeOf((error as Error).cause) === 'ENOENT') return undefined
    throw error
  }
}

/** Makes a directory, and those above it, durably. */
export async function ensureDirectory(path: string, mode = 0o700): Promise<void> {
  try {
    const whole = resolve(path) // also what mkdir answers is relative when the path is
    const first = await mkdir(whole, { recursive: true, mode })
    if (first === undefined) return
    for (let made = whole; made.length >= first.length; made = dirname(made)) {
      await syncDirectory(dirname(made))
    }
  } catch (cause) {
    throw fileFault(path, cause)
  }
}

/**
 * Names of a directory's entries, sorted; none when it is not there. Left-over temporary files of a
 * crash are not listed.
 */
export async function listDirectory(path: string): Promise<string[]> {
  try {
    const names = await readdir(path)
    return names.filter((name) => !name.startsWith(temporaryPrefix)).sort()
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return []
    throw fileFault(path, cause)
  }
}

/** The errno name of a thrown system error, if it is one. */
export function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | undefined)?.code
}

/** The fault for a system error about `path`. */
export function fileFault(path: string, cause: unknown): Error {
  const code = codeOf(cause)
  if (code === 'ENOENT') {
    return baseFault('base.file_absent', `${path} does not exist`, { cause })
  }
  return baseFault('base.file_unreadable', `cannot access ${path}: ${code ?? 'unknown error'}`, {
    cause,
  })
}
