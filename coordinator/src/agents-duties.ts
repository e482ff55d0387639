import { type Clock, isFault } from '@holdfast/base'
import type { Agents } from './agents.ts'
import { expireCommands, pruneCommands } from './commands.ts'
import { expireEnrolments } from './enrolments.ts'
import type { Store } from './store.ts'

const second = 1_000
const minute = 60 * second
const commandsKept = 90 * 24 * 60 * minute

export interface DutiesOptions {
  agents: Agents
  store: Store
  clock: Clock
  /** A duty failed; it is done again at its next turn. */
  onError: (error: unknown) => void
}

/** What an instance does by itself for its agents, each at its own pace, until disposed. */
export function startDuties(options: DutiesOptions): AsyncDisposable {
  const { agents, store, clock } = options
  const stop = new AbortController()
  const loops = [
    repeat(options, second, stop.signal, () => agents.look()),
    repeat(options, 30 * second, stop.signal, () => agents.writeHeard()),
    repeat(options, minute, stop.signal, async () => {
      await expireEnrolments(store, clock)
      await expireCommands(store, clock)
    }),
    repeat(options, 60 * minute, stop.signal, () =>
      store.write((work) => pruneCommands(work, clock.now() - commandsKept)),
    ),
  ]
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await Promise.all(loops)
    },
  }
}

async function repeat(
  { clock, onError }: DutiesOptions,
  interval: number,
  signal: AbortSignal,
  duty: () => Promise<unknown>,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await duty()
    } catch (error) {
      // An agent that went away while it was told something is nothing to report.
      if (!isFault(error, 'link.session_closed')) onError(error)
    }
    await clock.sleep(interval, signal).catch(() => undefined)
  }
}
