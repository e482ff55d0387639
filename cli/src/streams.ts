import { randomBytes } from 'node:crypto'
import { fstatSync, read, readlinkSync, readSync } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { codeOf, fileFault, readBounded, Secret } from '@holdfast/base'
import { cliFault } from './faults.ts'
import { harmless } from './harmless.ts'

// Where bytes come from and go to. A file name `-` is standard input; `/dev/fd/N` and
// `/dev/stdin` are read from the descriptor itself, because opening them again fails for sockets
// and would rewind files.

const readDescriptor = promisify(read)

export interface Streams {
  /** Standard output is a terminal. */
  readonly outIsTerminal: boolean
  readonly errIsTerminal: boolean
  readonly inIsTerminal: boolean
  /** Columns of standard error's terminal, or 100. */
  readonly columns: number
  /** Rows of standard output's terminal, or 100. */
  readonly rows: number
  /** Writes to standard output and waits until it has been taken. */
  out(bytes: string | Uint8Array): Promise<void>
  /** Writes a line to standard error, made harmless. */
  err(line: string): void
}

/** The process's own streams. */
export function processStreams(): Streams {
  // Whoever read it has gone, such as a journal that is replaced: a server or an agent goes on.
  process.stderr.on('error', () => undefined)
  return {
    outIsTerminal: process.stdout.isTTY === true,
    errIsTerminal: process.stderr.isTTY === true,
    inIsTerminal: process.stdin.isTTY === true,
    columns: process.stderr.columns ?? 100,
    rows: process.stdout.rows || 100, // a terminal that does not know its size says 0
    out: (bytes) =>
      new Promise((resolve, reject) => {
        process.stdout.write(bytes, (error) => {
          if (error === undefined || error === null) return resolve()
          reject(
            cliFault('cli.output_failed', `standard output cannot be written: ${codeOf(error)}`),
          )
        })
      }),
    err: (line) => void process.stderr.write(`${harmless(line)}\n`),
  }
}

/** Reads a file, or a descriptor when it is named `-`, `/dev/stdin` or `/dev/fd/N`. */
export async function readInput(path: string, limit: number): Promise<Buffer> {
  const descriptor = descriptorOf(path)
  return descriptor === undefined
    ? await readBounded(path, limit)
    : await readAll(descriptor, path, limit)
}

/** A descriptor's bytes as they come, when `path` names one; undefined for any other file. */
export function streamInput(path: string): AsyncGenerator<Buffer> | undefined {
  const descriptor = descriptorOf(path)
  return descriptor === undefined ? undefined : chunksOf(descriptor)
}

/** A new file that ends with the process, whatever ends it: it has no name any more. */
export async function unnamedFile(directory: string): Promise<FileHandle> {
  const path = join(directory, `.tmp-${randomBytes(6).toString('hex')}`)
  try {
    const file = await open(path, 'wx+', 0o600)
    await unlink(path)
    return file
  } catch (cause) {
    throw fileFault(path, cause)
  }
}

/**
 * Reads a secret text such as a passphrase: one final newline does not belong to it.
 * @throws Fault cli.input_absent when nothing is there
 */
export async function readSecretText(path: string): Promise<Secret> {
  const bytes = await readInput(path, 1024 * 1024)
  const length = bytes.at(-1) === 0x0a ? bytes.length - 1 : bytes.length
  const secret = Secret.copy(bytes.subarray(0, length))
  bytes.fill(0)
  if (secret.length > 0) return secret
  throw cliFault('cli.input_absent', `${path === '-' ? 'standard input' : path} is empty`)
}

function descriptorOf(path: string): number | undefined {
  if (path === '-' || path === '/dev/stdin') return 0
  const match = /^\/(?:dev|proc\/self)\/fd\/(\d{1,4})$/.exec(path)
  return match?.[1] === undefined ? undefined : Number(match[1])
}

async function readAll(descriptor: number, path: string, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  try {
    for await (const chunk of chunksOf(descriptor)) {
      chunks.push(chunk)
      length += chunk.length
      if (length > limit) {
        throw cliFault('cli.config_invalid', `${path} holds more than ${limit} bytes`)
      }
    }
    return Buffer.concat(chunks)
  } finally {
    for (const chunk of chunks) chunk.fill(0)
  }
}

async function* chunksOf(descriptor: number): AsyncGenerator<Buffer> {
  try {
    requireGiven(descriptor)
    for (;;) {
      const chunk = Buffer.alloc(64 * 1024)
      const { bytesRead } = await readSome(descriptor, chunk)
      if (bytesRead === 0) return
      yield chunk.subarray(0, bytesRead)
    }
  } catch (cause) {
    if (codeOf(cause) !== 'EBADF') throw cause
    throw cliFault('cli.input_absent', `descriptor ${descriptor} is not open`, { cause })
  }
}

/** Descriptors that Node made for itself are not the caller's, though they are open. */
function requireGiven(descriptor: number): void {
  fstatSync(descriptor)
  if (!readlinkSync(`/proc/self/fd/${descriptor}`).startsWith('anon_inode:')) return
  throw cliFault('cli.input_absent', `descriptor ${descriptor} was not given to this command`)
}

/** One read; a non-blocking descriptor that has nothing yet is asked again. */
async function readSome(descriptor: number, chunk: Buffer): Promise<{ bytesRead: number }> {
  // A file never keeps anybody waiting, so there is no need to start a thread for it.
  if (fstatSync(descriptor).isFile()) return { bytesRead: readSync(descriptor, chunk) }
  for (;;) {
    try {
      return await readDescriptor(descriptor, chunk, 0, chunk.length, null)
    } catch (error) {
      if (codeOf(error) === 'EOF') return { bytesRead: 0 }
      if (codeOf(error) !== 'EAGAIN') throw error
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}
