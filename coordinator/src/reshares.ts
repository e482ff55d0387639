import { type Clock, isFault } from '@holdfast/base'
import type { Agents } from './agents.ts'
import type { Coordinator } from './coordinator.ts'
import { releaseLeavers } from './departures.ts'
import { currentManifest } from './manifests.ts'
import { addLoad, chooseGuardians, loadToBe, mayGuard, type NodeViews } from './placement.ts'
import { applyMoves, changesPeers, type Move, planReshares } from './reshare-moves.ts'
import {
  decide,
  type Facts,
  type History,
  holdsSlot,
  type Need,
  needs,
  type Reshare,
  type ReshareRules,
} from './reshare-plan.ts'
import { isPlanned, ReshareTurns } from './reshare-turns.ts'
import {
  readBlamed,
  readEpochs,
  readFailures,
  readKeys,
  readProven,
  readReshares,
  readViews,
  rulesOf,
} from './reshare-views.ts'
import { endedWithKeys, endKeys } from './ward-keys.ts'

// The duty that keeps every node guarded. Each round looks at the whole fleet once, decides, and
// writes the decisions down; what agents are told follows from what is written. Every instance does
// it: a round that finds that another one was faster changes nothing.

export interface ResharesOptions {
  coordinator: Coordinator
  agents: Agents
  clock: Clock
  /** Re-shares that may be between their first key and their proof at once. */
  atOnce?: number
}

const usuallyAtOnce = 100
/** Plans that a round looks at for each that may be under way. */
const looksPerSlot = 4
/** Decisions in one transaction. */
const batch = 100
/** Rows in one statement: an engine takes only so many values. */
const plannedAtOnce = 1_000
/** Milliseconds between looks: at least, and when nothing moves. */
const shortest = 50
const usual = 1_000

export class Reshares {
  readonly #options: ResharesOptions
  /** Since when this instance could have heard anybody. */
  readonly #since: number
  #kicked = new AbortController()
  readonly #turns: ReshareTurns
  #proven = new Map<string, number>()

  constructor(options: ResharesOptions) {
    this.#options = options
    this.#turns = new ReshareTurns(looksPerSlot * (options.atOnce ?? usuallyAtOnce))
    this.#since = options.clock.now()
  }

  /** Looks once and does what is due; says how much that was. */
  async round(): Promise<number> {
    const { coordinator, agents } = this.#options
    if (coordinator.state !== 'running') return 0
    const { manifest } = (await currentManifest(coordinator)) ?? {}
    if (manifest === undefined) return 0
    await agents.flush()
    const rules = rulesOf(manifest)
    const views = await this.#views(manifest.vault.pins !== undefined)
    let changed = 0
    if (manifest.vault.unlock !== 'pins') changed += await this.#move(rules, views)
    changed += await this.#clear(views)
    changed += await releaseLeavers(coordinator.store, this.#options.clock, views, rules)
    if (changed > 0) await agents.look()
    return changed
  }

  /** Looks again and again, soon after something has moved, until the signal. */
  async run(signal: AbortSignal, onError: (error: unknown) => void): Promise<void> {
    const { clock } = this.#options
    while (!signal.aborted) {
      this.#kicked = new AbortController()
      const began = performance.now()
      const changed = await this.round().catch((error: unknown) => {
        // A coordinator that is sealed in this very moment has nothing to decide.
        if (!isFault(error, 'coordinator.data_key_sealed')) onError(error)
        return 0
      })
      // A look takes longer in a large fleet: it takes half of the time as long as things move, at
      // most a fifth when something might have moved, and otherwise a twentieth.
      const took = performance.now() - began
      const pause = changed > 0 ? took : 4 * took
      await clock.sleep(Math.max(shortest, pause), signal).catch(() => undefined)
      const either = AbortSignal.any([signal, this.#kicked.signal])
      await clock.sleep(Math.max(usual, 20 * took), either).catch(() => undefined)
    }
  }

  /** Something has moved. */
  kick(): void {
    this.#kicked.abort()
  }

  async #views(pins: boolean): Promise<NodeViews> {
    const { coordinator, agents, clock } = this.#options
    const liveness = { now: clock.now(), silence: agents.silence }
    return await readViews(coordinator.store.read, { ...liveness, pins })
  }

  async #move(rules: ReshareRules, views: NodeViews): Promise<number> {
    const { store } = this.#options.coordinator
    const reshares = await readReshares(store.read)
    const due = await this.#due(rules, views, reshares)
    const planned = new Set(reshares.filter(isPlanned).map(({ ward }) => ward))
    const fresh = due.filter(({ ward }) => !planned.has(ward)).slice(0, plannedAtOnce)
    const added =
      fresh.length === 0
        ? 0
        : await store.write((work) => planReshares(work, this.#options.clock.now(), fresh))
    const moves = await this.#decide(
      rules,
      views,
      due,
      added > 0 ? await readReshares(store.read) : reshares,
    )
    return added + (await this.#apply(moves))
  }

  /** Whoever has to move, leaving out those that do already. */
  async #due(rules: ReshareRules, views: NodeViews, reshares: readonly Reshare[]): Promise<Need[]> {
    const { coordinator, clock } = this.#options
    const now = clock.now()
    const failures = await readFailures(coordinator.store.read, now)
    const active = new Set(
      reshares
        .filter((each) => !isPlanned(each) && each.state !== 'failed')
        .map(({ ward }) => ward),
    )
    const survey = (): Need[] => {
      const history = (ward: string): History => ({
        active: active.has(ward),
        doneAt: this.#proven.get(ward),
        ...(failures.get(ward) ?? { failures: 0, failedAt: Number.NEGATIVE_INFINITY }),
      })
      return needs({ now, since: this.#since, views, rules, history })
    }
    const due = survey()
    // Ages of sets are read only when one seems due: meanwhile this or another instance has made it anew.
    if (!due.some(({ cause }) => cause === 'schedule')) return due
    this.#proven = await readProven(coordinator.store.read)
    return survey()
  }

  async #decide(
    rules: ReshareRules,
    views: NodeViews,
    due: readonly Need[],
    reshares: readonly Reshare[],
  ): Promise<Move[]> {
    const { coordinator, clock, atOnce = usuallyAtOnce } = this.#options
    const { read } = coordinator.store
    const now = clock.now()
    let free = Math.max(0, atOnce - reshares.filter((each) => holdsSlot(each, now)).length)
    const turns = free === 0 ? [] : this.#turns.of(due, reshares)
    const [keys, epochs] = [await readKeys(read), await readEpochs(read, turns)]
    const dueWards = new Set(due.map(({ ward }) => ward))
    const inOrder = new Set(turns)
    const underWay = reshares.filter(({ state }) => state === 'preparing' || state === 'ordered')
    const load = loadToBe(views, underWay)
    const choose = turns.length === 0 ? () => [] : await this.#chooser(rules, views, load)
    const moves: Move[] = []
    for (const reshare of inTurn(reshares, turns)) {
      const { ward } = reshare
      const itsTurn = free > 0 && isPlanned(reshare) && inOrder.has(ward)
      const view = views.get(ward)
      const facts: Facts = {
        ...{ now, ward: view, views, rules },
        keys: keys.get(ward) ?? [],
        free: itsTurn,
        due: dueWards.has(ward),
        nextEpoch: Math.max(epochs.get(ward) ?? 0, view?.epoch ?? 0) + 1,
        choose: () => (view === undefined ? [] : choose(view)),
      }
      const decision = decide(reshare, facts)
      if (decision?.to === 'preparing') {
        free -= 1
        addLoad(load, view, decision.guardians)
      } else if (itsTurn) this.#turns.pass(ward)
      if (decision !== undefined) moves.push({ reshare, decision })
    }
    return moves
  }

  /** Chooses guardians by a load that grows as they are chosen. */
  async #chooser(rules: ReshareRules, views: NodeViews, load: ReadonlyMap<string, number>) {
    const { coordinator, clock } = this.#options
    const avoid = await readBlamed(coordinator.store.read, clock.now())
    const candidates = [...views.values()].filter(mayGuard)
    return (ward: Parameters<typeof chooseGuardians>[0]) =>
      chooseGuardians(ward, candidates, rules, { load, avoid })
  }

  async #apply(moves: readonly Move[]): Promise<number> {
    if (moves.length === 0) return 0
    const { coordinator, agents, clock } = this.#options
    // To read the key is written down: only who publishes something reads it.
    const publishes = moves.some(({ decision }) => changesPeers(decision))
    const signer = publishes ? await agents.signer() : undefined
    if (publishes && signer === undefined) return 0
    const deps = { clock, signer }
    let applied = 0
    for (let start = 0; start < moves.length; start += batch) {
      const part = moves.slice(start, start + batch)
      applied += await coordinator.store.write((work) => applyMoves(work, deps, part))
    }
    return applied
  }

  /** Keys of and at nodes that have left or were wiped. */
  async #clear(views: NodeViews): Promise<number> {
    const { store } = this.#options.coordinator
    const ended = [...views.values()].filter(({ phase }) => phase === 'left' || phase === 'wiped')
    // Asked once for all of them: those that were never removed are there at every look.
    const keyed = ended.length === 0 ? new Set<string>() : await endedWithKeys(store.read)
    let cleared = 0
    for (const { node, guardians } of ended) {
      if (guardians.length === 0 && !keyed.has(node)) continue
      await store.write((work) => endKeys(work, node))
      cleared += 1
    }
    return cleared
  }
}

/** What is under way, and then the plans in the order of their turns. */
function inTurn(reshares: readonly Reshare[], turns: readonly string[]): Reshare[] {
  const places = new Map(turns.map((ward, place) => [ward, place]))
  const place = (each: Reshare) => (isPlanned(each) ? (places.get(each.ward) ?? 0) : -1)
  return reshares.toSorted((a, b) => place(a) - place(b))
}
