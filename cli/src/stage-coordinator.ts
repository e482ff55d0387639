import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort, parseJsonObject, type RunningProgram, run, startProgram } from '@holdfast/base'

// A coordinator of the stage: a real process of the program under test, on a port that stays. When it
// ends by itself it is started again, as a service manager would do.

export class StageCoordinator implements AsyncDisposable {
  /** What it keeps: identity, state, host key, claim token. */
  readonly directory: string
  readonly #program: string
  readonly #template: string
  readonly #environment: Readonly<Record<string, string>>
  #port = 0
  #identity = ''
  #running: RunningProgram | undefined
  #stopping = false

  constructor(home: string, program: string, environment: Readonly<Record<string, string>>) {
    this.directory = join(home, 'state')
    this.#template = join(home, 'template')
    this.#program = program
    this.#environment = environment
  }

  get url(): string {
    return `https://127.0.0.1:${this.#port}`
  }

  get identity(): string {
    return this.#identity
  }

  async start(): Promise<void> {
    this.#stopping = false
    await mkdir(this.directory, { recursive: true, mode: 0o700 })
    // One that the system gives to others as well could be somebody's when it is started again.
    if (this.#port === 0) this.#port = await freePort()
    const words = ['coordinator', 'serve', '--json', '--directory', this.directory]
    const { running, line } = await startProgram(
      process.execPath,
      [this.#program, ...words, '--port', String(this.#port), '--log', 'error'],
      (text) => text.includes('"ready"'),
      { environment: this.#environment, readyWithin: 240_000, grace: 60_000 },
    )
    const ready = parseJsonObject(line, 'the first line')
    this.#identity = String(ready.identity)
    this.#running = running
    void running.ended.then(() => {
      if (!this.#stopping) return this.start()
      return undefined
    })
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running?.[Symbol.asyncDispose]()
  }

  /** Remembers the state as it is, for `reset`. */
  async keep(): Promise<void> {
    await this.stop()
    await run('cp', ['-a', this.directory, this.#template])
    await this.start()
  }

  /** Puts the state back to what `keep` remembered. */
  async reset(): Promise<void> {
    await this.stop()
    await rm(this.directory, { recursive: true, force: true })
    await run('cp', ['-a', this.#template, this.directory])
    await this.start()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
