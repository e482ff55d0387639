import { setTimeout as delay } from 'node:timers/promises'
import type { ControlPlaneState, FleetRehearsal, WholeFleet } from '@holdfast/drills'
import type { Context } from './command.ts'
import { controlChanges } from './fleet-node-table.ts'
import { asItStands } from './fleet-now.ts'
import { fleetText } from './fleet-report.ts'
import { changesOf } from './fleet-table.ts'
import { LiveScreen } from './live-screen.ts'
import { painter } from './output.ts'

// What `holdfast up` does once everything runs: rehearse again and again, and show what it sees.

/** What was seen last. */
export interface Seen {
  rehearsal: FleetRehearsal
  control: ControlPlaneState | undefined
}

const newsShown = 5
/** Milliseconds between two looks at the fleet, when somebody is watching. */
const liveInterval = 1000

/** Rehearses the volume and one node each `interval` milliseconds, and shows it, until the signal. */
export async function watchFleet(
  fleet: WholeFleet,
  seen: Seen,
  interval: number,
  context: Context,
): Promise<void> {
  const { signal, streams, json } = context
  using screen = new LiveScreen(streams, !json && streams.outIsTerminal)
  const view = new View(fleet, seen, screen, context)
  await Promise.all([
    repeat(interval, signal, async () => {
      seen.rehearsal = await fleet.local.rehearse(signal)
    }),
    repeat(interval, signal, () => fleet.rehearseNext(signal)),
    repeat(screen.live ? liveInterval : interval, signal, () => view.show()),
  ])
}

/** Shows what has changed: in place on a terminal, elsewhere as lines. */
class View {
  readonly #fleet: WholeFleet
  readonly #seen: Seen
  readonly #screen: LiveScreen
  readonly #context: Context
  readonly #news: string[] = []
  #before: Partial<Seen> = {}

  constructor(fleet: WholeFleet, seen: Seen, screen: LiveScreen, context: Context) {
    this.#fleet = fleet
    this.#seen = seen
    this.#screen = screen
    this.#context = context
  }

  async show(): Promise<void> {
    const { streams, json, clock } = this.#context
    this.#seen.control = await this.#fleet.look()
    const status = await this.#fleet.local.status()
    const now = clock.now()
    const { control } = this.#seen
    const rehearsal = asItStands(this.#seen.rehearsal, status, now)
    const changes = [
      ...(control === undefined ? [] : controlChanges(this.#before.control, control, now)),
      ...(rehearsal === this.#before.rehearsal ? [] : changesOf(this.#before.rehearsal, rehearsal)),
    ]
    this.#before = { rehearsal, control }
    if (json) return await streams.out(`${JSON.stringify({ rehearsal, control })}\n`)
    if (!this.#screen.live) {
      for (const change of changes) await streams.out(`${change}\n`)
      return
    }
    this.#news.push(...changes)
    this.#news.splice(0, Math.max(0, this.#news.length - newsShown))
    const text = await fleetText({ rehearsal, control, status }, now)
    const paint = painter()
    await this.#screen.draw([text, '', ...this.#news.map((line) => paint('dim', line))].join('\n'))
  }
}

/** Does something again and again until the signal; what it throws then does not count any more. */
async function repeat(
  interval: number,
  signal: AbortSignal,
  work: () => Promise<unknown>,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await work()
    } catch (error) {
      if (signal.aborted) return
      throw error
    }
    await delay(interval, undefined, { signal }).catch(() => undefined)
  }
}
