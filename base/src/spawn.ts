import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { baseFault } from './faults.ts'
import { cannotStart, programSearchPath } from './run.ts'

export interface StartOptions {
  environment?: Readonly<Record<string, string>>
  cwd?: string
  /** Called for every line of standard error. */
  onLine?: (line: string) => void
  /** Milliseconds to wait after SIGTERM before SIGKILL. Default 5 000. */
  grace?: number
  /** How long the first matching line may take, in milliseconds. Default 60 000. */
  readyWithin?: number
}

/** A long-running child process; disposing stops it and waits for its end. */
export interface RunningProgram extends AsyncDisposable {
  readonly pid: number
  /** Resolves with the exit code, or 128 plus the signal number's place-holder 137. */
  readonly ended: Promise<number>
  kill(signal: NodeJS.Signals): void
}

/**
 * Starts a program and waits until a line of its standard output satisfies `ready`.
 * Resolves with the process and that line.
 */
export async function startProgram(
  program: string,
  args: readonly string[],
  ready: (line: string) => boolean,
  options: StartOptions = {},
): Promise<{ running: RunningProgram; line: string }> {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: programSearchPath(), LC_ALL: 'C', ...options.environment },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  })
  const lastLines: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    lastLines.push(line)
    if (lastLines.length > 20) lastLines.shift()
    options.onLine?.(line)
  })
  const ended = new Promise<number>((resolve) => {
    child.once('close', (code) => resolve(code ?? 137))
  })
  const running = runningProgram(child, ended, options.grace ?? 5_000)
  try {
    return { running, line: await firstLine(child, program, ready, options, lastLines) }
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  }
}

function firstLine(
  child: ChildProcess,
  program: string,
  ready: (line: string) => boolean,
  options: StartOptions,
  lastLines: string[],
): Promise<string> {
  return new Promise((resolve, reject) => {
    const within = options.readyWithin ?? 60_000
    const timer = setTimeout(() => {
      reject(baseFault('base.program_timeout', `${program} was not ready within ${within} ms`))
    }, within)
    child.once('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      reject(cannotStart(program, error))
    })
    child.once('close', (code) => {
      clearTimeout(timer)
      const reason = lastLines.join('; ') || `exit code ${code}`
      reject(baseFault('base.program_failed', `${program} ended before it was ready: ${reason}`))
    })
    if (child.stdout === null) return
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (!ready(line)) return
      clearTimeout(timer)
      resolve(line)
    })
  })
}

function runningProgram(
  child: ChildProcess,
  ended: Promise<number>,
  grace: number,
): RunningProgram {
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), grace)
    if (child.exitCode === null && child.signalCode === null) await once(child, 'close')
    clearTimeout(timer)
  }
  return {
    pid: child.pid ?? 0,
    ended,
    kill: (signal) => void child.kill(signal),
    [Symbol.asyncDispose]: stop,
  }
}
