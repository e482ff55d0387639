import { type Clock, canonicalJson, messageOf } from '@holdfast/base'
import { due, step } from './life.ts'
import type { LifeEffect, LifeEvent } from './life-event.ts'
import type { LifeState } from './life-state.ts'

// Carries a node's life out: one event after the other is decided and made durable, and one effect at a
// time is done. An effect that is still due goes on; when another one is due it is stopped first. A
// failed effect is done again after a wait that grows, for ever.

export interface LifeRunnerOptions {
  state: LifeState
  /** Durable when it resolves. */
  persist: (state: LifeState) => Promise<void>
  /** Does one thing and says what came of it. Must stop at the signal, and bear being done again. */
  perform: (effect: LifeEffect, signal: AbortSignal) => Promise<LifeEvent>
  onChange?: (state: LifeState) => void
  clock: Clock
  /** Numbers in [0, 1). */
  random?: () => number
  /** Milliseconds: the first wait after a failure, and the longest. */
  backoff?: { base: number; most: number }
}

interface Running {
  key: string
  stop: AbortController
  ended: Promise<void>
}

export class LifeRunner implements AsyncDisposable {
  readonly #options: LifeRunnerOptions
  #state: LifeState
  #queue: Promise<unknown> = Promise.resolve()
  #running: Running | undefined
  #failures = 0
  #stopped = false

  constructor(options: LifeRunnerOptions) {
    this.#options = options
    this.#state = options.state
  }

  get state(): LifeState {
    return this.#state
  }

  /**
   * Lets the state take in an event; resolves when the next state is durable.
   * @returns whether the event said anything to the state
   */
  async tell(event: LifeEvent): Promise<boolean> {
    const turn = this.#queue.then(() => this.#take(event))
    this.#queue = turn.catch(() => undefined)
    return await turn
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true
    await this.#queue
    this.#running?.stop.abort()
    await this.#running?.ended
  }

  async #take(event: LifeEvent): Promise<boolean> {
    if (this.#stopped) return false
    const { state } = step(this.#state, event)
    const changed = state !== this.#state
    if (changed) {
      await this.#options.persist(state)
      this.#state = state
      this.#options.onChange?.(state)
    }
    this.#schedule()
    return changed
  }

  /** Starts what is due, unless it is being done. */
  #schedule(): void {
    const effect = due(this.#state)
    const key = effect === undefined ? '' : canonicalJson(effect)
    const before = this.#running
    if (before?.key === key) return
    before?.stop.abort()
    this.#running = undefined
    if (effect === undefined) return
    const stop = new AbortController()
    const running: Running = { key, stop, ended: Promise.resolve() }
    const previous = before?.ended ?? Promise.resolve()
    running.ended = previous.then(() => this.#do(effect, running))
    this.#running = running
  }

  async #do(effect: LifeEffect, running: Running): Promise<void> {
    const { signal } = running.stop
    while (!signal.aborted) {
      try {
        const event = await this.#options.perform(effect, signal)
        if (signal.aborted) return
        // It is over: if the next state asks for the same again, it is started anew.
        this.#running = undefined
        await this.tell(event)
        this.#failures = 0
        return
      } catch (error) {
        if (signal.aborted) return
        this.#running ??= running
        if (this.#running !== running) return
        await this.#failed(effect, error, signal)
      }
    }
  }

  async #failed(effect: LifeEffect, error: unknown, signal: AbortSignal): Promise<void> {
    const { clock, random = Math.random, backoff = { base: 1_000, most: 60_000 } } = this.#options
    const text = `${effect.kind}: ${messageOf(error)}`
    await this.tell({ kind: 'failed', text }).catch(() => undefined) // a full disk: wait and try again
    const ceiling = Math.min(backoff.most, backoff.base * 2 ** this.#failures)
    this.#failures = Math.min(this.#failures + 1, 16)
    await clock.sleep(Math.round(ceiling * (0.5 + random() / 2)), signal).catch(() => undefined)
  }
}
