import { type Clock, isFault } from '@holdfast/base'
import type { Agents } from './agents.ts'
import { pruneCeremonies } from './ceremony-end.ts'
import { expireCommands, pruneCommands } from './commands-end.ts'
import { expireEnrolments, pruneEnrolments } from './enrolments.ts'
import { pruneReshares } from './reshare-moves.ts'
import { Reshares } from './reshares.ts'
import type { Store } from './store.ts'

const second = 1_000
const minute = 60 * second
/** Milliseconds that what has ended is kept; the audit log keeps that it was. */
const kept = 90 * 24 * 60 * minute

/** Only what has ended: a clock that is years ahead for a while costs history and nothing else. */
const prunes = [pruneCommands, pruneReshares, pruneEnrolments, pruneCeremonies]

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
  const reshares = new Reshares({ coordinator: agents.coordinator, agents, clock })
  agents.onMoved(() => reshares.kick())
  const loops = [
    reshares.run(stop.signal, options.onError),
    repeat(options, second, stop.signal, () => agents.look()),
    repeat(options, 30 * second, stop.signal, () => agents.writeHeard()),
    repeat(options, minute, stop.signal, async () => {
      await expireEnrolments(store, clock)
      await expireCommands(store, clock)
    }),
    repeat(options, 60 * minute, stop.signal, () =>
      store.write(async (work) => {
        for (const prune of prunes) await prune(work, clock.now() - kept)
      }),
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
