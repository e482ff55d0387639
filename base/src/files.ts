import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { announce } from './effect.ts'
import { baseFault } from './faults.ts'

// Rules of this file: a durable write is complete or absent after a crash at any line. The bytes go
// to a temporary name in the same directory, are flushed, take the final name, and the directory
// is flushed; only then is the effect announced. Temporary names start with `.tmp-`.

const temporaryPrefix = '.tmp-'

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** Makes `path` hold exactly `bytes`, atomically and durably. `mode` defaults to 0600. */
export async function writeDurable(
  path: string,
  bytes: Uint8Array | string,
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
    throw unreadable(path, cause)
  }
  await syncDirectory(folder)
  announce('write', path)
}

/** Appends one record and flushes it. */
export async function appendDurable(path: string, text: string, mode = 0o600): Promise<void> {
  const file = await open(path, 'a', mode)
  try {
    await file.appendFile(text)
    await file.sync()
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
    throw unreadable(path, cause)
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
    throw unreadable(from, cause)
  }
  await syncDirectory(dirname(to))
  announce('rename', to)
}

/** Overwrites a file's content in place before removing it. Flash and journals may keep old blocks. */
export async function shredDurable(path: string): Promise<boolean> {
  let file: FileHandle
  try {
    file = await open(path, 'r+')
  } catch (cause) {
    // A read-only mode (0440 key files) does not stop root; others fall through to plain removal.
    if (codeOf(cause) === 'ENOENT') return false
    if (codeOf(cause) === 'EACCES') return removeDurable(path)
    throw unreadable(path, cause)
  }
  try {
    const { size } = await file.stat()
    await file.write(randomBytes(Math.max(size, 1)), 0, size, 0)
    await file.sync()
  } finally {
    await file.close()
  }
  return removeDurable(path)
}

/** Reads a whole file of at most `limit` bytes. */
export async function readBounded(path: string, limit: number): Promise<Buffer> {
  let file: FileHandle
  try {
    file = await open(path, 'r')
  } catch (cause) {
    throw unreadable(path, cause)
  }
  try {
    const chunk = Buffer.alloc(limit + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await file.read(chunk, length, chunk.length - length, null)
      length += bytesRead
      if (bytesRead === 0 || length > limit) break
    }
    if (length > limit) {
      chunk.fill(0)
      throw baseFault('base.file_too_large', `${path} is larger than ${limit} bytes`)
    }
    const bytes = Buffer.from(chunk.subarray(0, length))
    chunk.fill(0)
    return bytes
  } finally {
    await file.close()
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

export async function ensureDirectory(path: string, mode = 0o700): Promise<void> {
  await mkdir(path, { recursive: true, mode })
}

/** Names of a directory's entries, sorted; left-over temporary files of a crash are not listed. */
export async function listDirectory(path: string): Promise<string[]> {
  try {
    const names = await readdir(path)
    return names.filter((name) => !name.startsWith(temporaryPrefix)).sort()
  } catch (cause) {
    throw unreadable(path, cause)
  }
}

/** The errno name of a thrown system error, if it is one. */
export function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | undefined)?.code
}

function unreadable(path: string, cause: unknown): Error {
  const code = codeOf(cause)
  if (code === 'ENOENT') {
    return baseFault('base.file_absent', `${path} does not exist`, { cause })
  }
  return baseFault('base.file_unreadable', `cannot access ${path}: ${code ?? 'unknown error'}`, {
    cause,
  })
}
