import { type FSWatcher, watch } from 'node:fs'
import { join } from 'node:path'
import { prefixFolder, stampOf } from './directory.ts'

export interface WatchDeps {
  readonly directory: string
  /** Milliseconds between looks; events only make the next look come sooner. */
  readonly interval: number
  /** Called after a change was seen; its rejection is passed to `onError` and tried again. */
  onChange(): Promise<void>
  onError(error: unknown): void
}

const settleTime = 30

/**
 * Watches a key directory: a look at names and times at every interval, and soon after the kernel
 * reports an event. The look alone would be enough; on network file systems there are no events.
 */
export class DirectoryWatch implements Disposable {
  readonly #deps: WatchDeps
  readonly #timer: NodeJS.Timeout
  #soon: NodeJS.Timeout | undefined
  #watchers: FSWatcher[] = []
  #looking = false
  #paused = 0
  #seen: string | undefined

  constructor(deps: WatchDeps) {
    this.#deps = deps
    this.#timer = setInterval(() => void this.look(), deps.interval).unref()
    this.#listen()
  }

  /** While paused nothing is looked at; the change under way reports itself. */
  pause(): Disposable {
    this.#paused += 1
    return {
      [Symbol.dispose]: () => {
        this.#paused -= 1
      },
    }
  }

  /** Takes the directory's present state as seen. */
  async settle(): Promise<void> {
    this.#seen = await this.#stamp()
  }

  async look(): Promise<void> {
    if (this.#looking || this.#paused > 0) return
    this.#looking = true
    try {
      const stamp = await this.#stamp()
      if (stamp !== this.#seen) {
        await this.#deps.onChange()
        this.#seen = stamp
        this.#listen()
      }
    } catch (error) {
      this.#deps.onError(error)
    } finally {
      this.#looking = false
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    clearTimeout(this.#soon)
    for (const watcher of this.#watchers) watcher.close()
  }

  async #stamp(): Promise<string> {
    return await stampOf(this.#deps.directory)
  }

  #listen(): void {
    for (const watcher of this.#watchers) watcher.close()
    const { directory } = this.#deps
    const folders = [directory, join(directory, prefixFolder)]
    this.#watchers = folders.flatMap((folder) => {
      try {
        const watcher = watch(folder, { persistent: false }, () => this.#event())
        watcher.on('error', () => watcher.close())
        return [watcher]
      } catch {
        return [] // no such folder yet, or no watches left: the interval remains
      }
    })
  }

  #event(): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined
      void this.look()
    }, settleTime).unref()
  }
}
