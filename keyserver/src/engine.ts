import { messageOf } from '@holdfast/base'
import type { Log } from '@holdfast/base/log'
import { isDirectory, readDirectory, requireTightPermissions } from './directory.ts'
import { keyserverFault } from './faults.ts'
import { selfTest, warmUp } from './self-test.ts'
import { buildSnapshot, disposeDropped, type Snapshot } from './snapshot.ts'
import { readState } from './state.ts'

const warmUpRounds = 200
const selfTestInterval = 60_000

/** What GET /healthz says. */
export interface Health {
  readonly status: 'ok' | 'degraded' | 'failed'
  readonly reasons: readonly string[]
  readonly fingerprint: string
  readonly advertised: number
  readonly hidden: number
  readonly prefixes: number
  readonly hold: boolean
}

/**
 * The keys of one server process: loads the directory, replaces the picture when it changed, and
 * proves now and then that the arithmetic still agrees with OpenSSL.
 */
export class Engine implements Disposable {
  readonly #directory: string
  readonly #log: Log
  readonly #timer: NodeJS.Timeout
  #snapshot: Snapshot
  #reloadProblem: string | undefined
  #faulty = false
  #tested = 0
  #reloading: Promise<void> = Promise.resolve()

  private constructor(directory: string, snapshot: Snapshot, log: Log, onFaulty: () => void) {
    this.#directory = directory
    this.#snapshot = snapshot
    this.#log = log
    this.#timer = setInterval(() => this.#test(onFaulty), selfTestInterval).unref()
  }

  /**
   * Loads the directory for serving.
   * @throws Fault keyserver.directory_unreadable, keyserver.directory_empty,
   *   keyserver.permissions_loose, keyserver.self_test_failed
   */
  static async start(directory: string, log: Log, onFaulty: () => void): Promise<Engine> {
    const snapshot = await loadForServing(directory, log)
    for (const [index, key] of firstOfEachCurve(snapshot).entries()) {
      warmUp(key.exchange, index === 0 ? warmUpRounds : warmUpRounds / 4)
    }
    return new Engine(directory, snapshot, log, onFaulty)
  }

  get snapshot(): Snapshot {
    return this.#snapshot
  }

  /** Reads the directory again and replaces the picture at once; on failure the old one stays. */
  reload(): Promise<void> {
    const next = this.#reloading.then(() => this.#load())
    this.#reloading = next.catch(() => undefined)
    return next
  }

  async #load(): Promise<void> {
    try {
      const keySet = await readDirectory(this.#directory)
      const state = await readState(this.#directory)
      const previous = this.#snapshot
      const next = buildSnapshot(keySet, state, previous, (details, message) =>
        this.#log.warn(details, message),
      )
      await next.spaces.get('')?.advertisement()
      this.#snapshot = this.#faulty ? { ...next, canSign: false } : next
      disposeDropped(previous, next)
      this.#reloadProblem = undefined
      const { fingerprint, counts, complete } = next
      this.#log.info({ fingerprint, ...counts, complete }, 'the key directory was read')
    } catch (error) {
      this.#reloadProblem = messageOf(error)
      this.#log.error({ error: messageOf(error) }, 'the key directory could not be read again')
      throw error
    }
  }

  health(): Health {
    const { fingerprint, counts, hold, complete, canSign } = this.#snapshot
    const reasons = [
      ...(this.#faulty ? ['the self-test failed'] : []),
      ...(canSign ? [] : ['there is no signing key']),
      ...(this.#reloadProblem === undefined ? [] : ['the key directory cannot be read']),
      ...(complete ? [] : ['a signing or exchange key to advertise is missing']),
      ...(counts.problems === 0 ? [] : [`${counts.problems} key files have a problem`]),
      ...(hold ? ['recoveries are on hold'] : []),
    ]
    const failed = this.#faulty || !canSign
    const { advertised, hidden, prefixes } = counts
    const status = failed ? 'failed' : reasons.length > 0 ? 'degraded' : 'ok'
    return { status, reasons, fingerprint, advertised, hidden, prefixes, hold }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    disposeDropped(this.#snapshot)
  }

  #test(onFaulty: () => void): void {
    const keys = [...this.#snapshot.serving.values()]
    const key = keys[this.#tested % Math.max(keys.length, 1)]
    this.#tested += 1
    if (key === undefined) return
    try {
      selfTest(key.exchange, key.privateKey)
    } catch (error) {
      this.#faulty = true
      this.#snapshot = { ...this.#snapshot, canSign: false } // every recovery is answered 500
      this.#log.fatal({ kid: key.stored.kid, error: messageOf(error) }, 'a self-test failed')
      onFaulty()
    }
  }
}

function firstOfEachCurve(snapshot: Snapshot) {
  const keys = [...snapshot.serving.values()].filter((key) => !key.stored.hidden)
  return keys.filter(
    (key, index) => keys.findIndex((other) => other.stored.crv === key.stored.crv) === index,
  )
}

async function loadForServing(directory: string, log: Log): Promise<Snapshot> {
  if (!isDirectory(directory)) {
    throw keyserverFault(
      'keyserver.directory_unreadable',
      `the key directory ${directory} does not exist`,
      { hint: 'is its volume mounted? To make new keys: holdfast keyserver serve --init' },
    )
  }
  const keySet = await readDirectory(directory)
  await requireTightPermissions(keySet)
  const snapshot = buildSnapshot(keySet, await readState(directory), undefined, (details, text) =>
    log.warn(details, text),
  )
  if (!snapshot.complete) {
    throw keyserverFault(
      'keyserver.directory_empty',
      `${directory} has no ${missing(snapshot)} to advertise`,
      {
        hint: 'is its volume mounted? To make new keys: holdfast keyserver serve --init, or rotate when hidden keys remain',
        details: { problems: keySet.problems.map(({ file, reason }) => ({ file, reason })) },
      },
    )
  }
  await snapshot.spaces.get('')?.advertisement()
  return snapshot
}

function missing(snapshot: Snapshot): string {
  return snapshot.canSign ? 'exchange key or no signing key' : 'signing key'
}
