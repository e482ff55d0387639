import { readdir, readFile } from 'node:fs/promises'
import { codeOf, type RunningProgram, startProgram, systemClock } from '@holdfast/base'
import type { Command } from './fleet.ts'

/** Milliseconds for a start: for what hangs, not for what is slow on a machine with much else to do. */
export const readyWithin = 240_000
/** Milliseconds for an orderly end, likewise: one that is cut off is another thing than was asked for. */
export const endsWithin = 60_000

/** Starts a program and waits for the line that says it is ready, as `read` understands it. */
export async function startReady<T>(
  { program, args }: Command,
  more: readonly string[],
  read: (line: string) => T | undefined,
): Promise<{ running: RunningProgram; ready: T }> {
  const { running, line } = await startProgram(
    program,
    [...args, ...more],
    (text) => read(text) !== undefined,
    { readyWithin, grace: endsWithin },
  )
  const ready = read(line)
  if (ready === undefined) throw new Error('a line that was ready is ready') // it was chosen by this
  return { running, ready }
}

/** A program in a process of its own, started and ended any number of times. */
export abstract class ManagedProcess implements AsyncDisposable {
  #running: RunningProgram | undefined
  #starting: Promise<void> | undefined

  /** Starts the program and resolves when it is ready. */
  protected abstract launch(): Promise<RunningProgram>

  /** The process now; undefined while it is not running. */
  get running(): RunningProgram | undefined {
    return this.#running
  }

  get pid(): number | undefined {
    return this.#running?.pid
  }

  /** Starts it unless it runs. Whoever asks while it is starting waits for that start. */
  start(): Promise<void> {
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined
    })
    return this.#starting
  }

  async #start(): Promise<void> {
    if (this.#running !== undefined) return
    const running = await this.launch()
    this.#running = running
    void running.ended.then(() => {
      if (this.#running === running) this.#running = undefined
    })
  }

  /** Asks it to end (SIGTERM) and waits for that; a start that is under way comes first. */
  async stop(): Promise<void> {
    const running = await this.#taken()
    await running?.[Symbol.asyncDispose]()
  }

  /** Ends it at once (SIGKILL), as a power cut does; a start that is under way comes first. */
  async kill(): Promise<void> {
    const running = await this.#taken()
    running?.kill('SIGKILL')
    await running?.ended
  }

  /** Holds it still (SIGSTOP) meanwhile, so that no file of it comes or goes: a snapshot can be taken. */
  async whileStill<T>(action: () => Promise<T>): Promise<T> {
    const running = this.#running
    running?.kill('SIGSTOP')
    try {
      if (running !== undefined) await isStill(running.pid)
      return await action()
    } finally {
      running?.kill('SIGCONT')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** The process, which does not count as running any more. */
  async #taken(): Promise<RunningProgram | undefined> {
    await this.#starting?.catch(() => undefined) // whoever started it hears of it
    const running = this.#running
    this.#running = undefined
    return running
  }
}

/**
 * Resolves when none of its threads runs: each that is in the kernel stops when it comes back, and a
 * file may come or go until then. @see proc(5) for the states; one that ends runs no more either.
 */
async function isStill(pid: number): Promise<void> {
  while (!(await statesOf(pid)).every((state) => 'TtZX'.includes(state))) await systemClock.sleep(1)
}

/** The states of its threads; none of a process that has ended. */
async function statesOf(pid: number): Promise<string[]> {
  const folder = `/proc/${pid}/task`
  const threads = await ifThere(readdir(folder))
  return await Promise.all(
    (threads ?? []).map(async (thread) => {
      const stat = await ifThere(readFile(`${folder}/${thread}/stat`, 'utf8'))
      return /\) (\w) /.exec(stat ?? '')?.[1] ?? 'X'
    }),
  )
}

/** What is read of a thread, which may be gone meanwhile. */
async function ifThere<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return undefined
    throw error
  }
}
