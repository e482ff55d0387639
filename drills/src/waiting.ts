import {
  type Unlocked,
  type UnlockOptions,
  unlockVault,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import type { Stage } from './drill.ts'

type WayEvent = Parameters<NonNullable<UnlockOptions['onEvent']>>[0]

/** A machine that waits for its volume to open, as it does at boot: it never gives up by itself. */
export class Waiting {
  readonly opened: Promise<Unlocked>
  readonly #signal: AbortSignal
  readonly #watchers = new Set<(event: WayEvent) => void>()
  #waits = true
  #retries = 0

  constructor(
    { signal }: Stage,
    deps: VaultDeps,
    { device }: VolumeRef,
    options: Pick<UnlockOptions, 'passphrase'> = {},
  ) {
    this.#signal = signal
    const onEvent = (event: WayEvent) => {
      if (event.state === 'retrying') this.#retries += 1
      for (const watcher of this.#watchers) watcher(event)
    }
    const how = { retry: true, timeout: 60_000, testOnly: true, signal, onEvent, ...options }
    this.opened = unlockVault(deps, { device }, how).finally(() => {
      this.#waits = false
    })
    this.opened.catch(() => undefined) // whoever awaits it sees the fault
  }

  get isWaiting(): boolean {
    return this.#waits
  }

  /** Attempts of single pins that failed so far and will be made again. */
  get retries(): number {
    return this.#retries
  }

  /** Waits until `count` events from now satisfy `wanted`. */
  until(wanted: (event: WayEvent) => boolean, count = 1): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    let left = count
    const watcher = (event: WayEvent) => {
      if (wanted(event)) left -= 1
      if (left <= 0) resolve()
    }
    const stop = () => reject(this.#signal.reason)
    this.#watchers.add(watcher)
    this.#signal.addEventListener('abort', stop, { once: true })
    return promise.finally(() => {
      this.#watchers.delete(watcher)
      this.#signal.removeEventListener('abort', stop)
    })
  }
}
