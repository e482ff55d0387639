import { spawn } from 'node:child_process'
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { announce } from './effect.ts'
import { baseFault } from './faults.ts'
import packages from './programs.json' with { type: 'json' }
import { Secret } from './secret.ts'

// Rules of this file: no shell, a fixed PATH and locale, bounded output, and a secret reaches a
// program on its standard input or as an inherited descriptor of an unlinked tmpfs file, never as
// text in its arguments or environment. (Node's own extra descriptors are sockets, which
// `cryptsetup --key-file` cannot open.)

export interface RunOptions {
  /** Bytes for standard input; without it standard input is empty. */
  input?: Secret | Uint8Array | string
  signal?: AbortSignal
  /** Kill the program after this many milliseconds. Default 120 000. */
  timeout?: number
  /** Exit codes that are answers rather than failures. Default [0]. */
  accept?: readonly number[]
  /** Upper bound for each of standard output and error, in bytes. Default 16 MiB. */
  limit?: number
  /**
   * What happens at the limit. `fail`, the default, is a fault; `stop` ends the program and gives what
   * it has printed so far, which is then `truncated`.
   */
  overflow?: 'fail' | 'stop'
  /** Additional environment, never a secret. */
  environment?: Readonly<Record<string, string>>
  cwd?: string
}

export interface RunResult {
  code: number
  /** Standard output. May be a secret: the caller owns and wipes it. */
  stdout: Buffer
  stderr: string
  /** It was stopped because it had printed enough; the code says nothing then. */
  truncated: boolean
}

/** A secret among the arguments is passed as the path of an inherited descriptor. */
export type Argument = string | Secret

const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec'
/** `__O_TMPFILE`, the same everywhere, with O_DIRECTORY, which is not (open(2), fcntl.h). */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

/**
 * Runs a program to its end.
 * @throws Fault base.program_missing, base.program_failed (with its standard error),
 *   base.program_timeout
 */
export async function run(
  program: string,
  args: readonly Argument[],
  options: RunOptions = {},
): Promise<RunResult> {
  const descriptors: number[] = []
  try {
    const words = args.map((argument) =>
      typeof argument === 'string'
        ? argument
        : `/dev/fd/${descriptors.push(secretDescriptor(argument)) + 2}`,
    )
    const result = await execute(program, words, descriptors, options)
    announce('run', [program, ...words].join(' '))
    const answered = result.truncated || (options.accept ?? [0]).includes(result.code)
    if (!answered) throw failed(program, words, result)
    return result
  } finally {
    for (const descriptor of descriptors) closeSync(descriptor)
  }
}

/** The path a child of ours would look programs up in. */
export function programSearchPath(): string {
  return searchPath
}

function secretDescriptor(secret: Secret): number {
  const bytes = secret.reveal()
  const descriptor = openSync('/dev/shm', O_TMPFILE | constants.O_RDWR, 0o600)
  writeSync(descriptor, bytes, 0, bytes.length, 0)
  return descriptor
}

function execute(
  program: string,
  words: string[],
  descriptors: number[],
  options: RunOptions,
): Promise<RunResult> {
  const limit = options.limit ?? 16 * 1024 * 1024
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, {
      stdio: ['pipe', 'pipe', 'pipe', ...descriptors],
      env: { PATH: searchPath, LC_ALL: 'C', ...options.environment },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      killSignal: 'SIGKILL',
    })
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      child.kill('SIGKILL')
    }, options.timeout ?? 120_000)
    const collect = collector(limit, () => child.kill('SIGKILL'))
    child.stdout?.on('data', collect.out)
    child.stderr?.on('data', collect.err)
    child.stdin?.on('error', () => undefined) // a program may exit without reading its input
    child.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      reject(options.signal?.aborted === true ? error : cannotStart(program, error))
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      if (timedOut) {
        const text = `${program} did not finish within ${options.timeout ?? 120_000} ms`
        return reject(baseFault('base.program_timeout', text))
      }
      if (collect.exceeded() && options.overflow !== 'stop') {
        const text = `${program} printed more than ${limit} bytes and was stopped`
        return reject(baseFault('base.program_failed', text))
      }
      const truncated = collect.exceeded()
      resolve({ code: code ?? (signal === null ? 1 : 137), truncated, ...collect.result() })
    })
    const { input } = options
    child.stdin?.end(input instanceof Secret ? input.reveal() : input)
  })
}

function collector(limit: number, stop: () => void) {
  const out: Buffer[] = []
  const err: Buffer[] = []
  let exceeded = false
  const add = (into: Buffer[]) => {
    let size = 0
    return (chunk: Buffer) => {
      size += chunk.length
      const room = chunk.length - Math.max(0, size - limit)
      if (room > 0) into.push(room < chunk.length ? chunk.subarray(0, room) : chunk)
      exceeded ||= size > limit
      if (exceeded) stop()
    }
  }
  return {
    out: add(out),
    err: add(err),
    exceeded: () => exceeded,
    result: () => {
      const stdout = Buffer.concat(out)
      for (const chunk of out) chunk.fill(0)
      return { stdout, stderr: Buffer.concat(err).toString('utf8') }
    },
  }
}

function failed(program: string, words: string[], result: RunResult): Error {
  result.stdout.fill(0)
  const reason = result.stderr.trim().slice(0, 2000) || `exit code ${result.code}`
  const verb = words.find((word) => !word.startsWith('-')) ?? ''
  return baseFault(
    'base.program_failed',
    `${program} ${verb} failed: ${reason}`.replace(/ +/g, ' '),
    {
      details: { program, code: result.code, stderr: result.stderr.slice(0, 4000) },
    },
  )
}

/**
 * Takes an exclusive lock (flock(2)) on an open file of ours, which keeps it until the file is
 * closed or this process ends in whatever way. False when somebody else has it.
 * Node has no call for this; the `flock` program locks the description that it inherits.
 */
export async function lockDescriptor(descriptor: number): Promise<boolean> {
  const options = { accept: [0, 1] }
  const words = ['--exclusive', '--nonblock', '3']
  const result = await execute('flock', words, [descriptor], options)
  if (!options.accept.includes(result.code)) throw failed('flock', words, result)
  return result.code === 0
}

/** The fault for a program that could not be started. */
export function cannotStart(program: string, error: NodeJS.ErrnoException): Error {
  if (error.code === 'ENOENT') return programMissing(program)
  return baseFault('base.program_failed', `${program} cannot be started: ${error.message}`)
}

/** The fault for a program that is not installed, naming the Debian package that has it. */
export function programMissing(program: string): Error {
  const owner = (packages as Record<string, string>)[program]
  return baseFault('base.program_missing', `${program} is not installed`, {
    hint: owner === undefined ? `install ${program}` : `apt-get install ${owner}`,
  })
}
