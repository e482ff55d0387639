import type { GuardianSet } from '@holdfast/agent'
import {
  type chooseGuardians,
  type Decision,
  type decide,
  type Facts,
  holdsSlot,
  loadOf,
  mayGuard,
  type NodeView,
  type NodeViews,
  type needs,
  type nextCommandState,
  type ReshareRules,
  strandedByLeaving,
  withoutNode,
} from '@holdfast/coordinator/decisions'
import type { SimulatedCoordinator } from './coordinator.ts'
import type { Instruction, Told } from './messages.ts'
import type { ReshareRow, Tables } from './rows.ts'

// The duty that keeps every node guarded, as coordinator/src/reshares.ts and reshare-moves.ts have it,
// over tables in memory. What is decided comes from the real functions; tests give broken ones.

export interface Decisions {
  needs: typeof needs
  decide: typeof decide
  chooseGuardians: typeof chooseGuardians
  nextCommandState: typeof nextCommandState
  /** A higher epoch than every one that was used. */
  nextEpoch: (used: number, reported: number) => number
}

export const rules: ReshareRules = {
  count: 5,
  threshold: 3,
  margin: 1,
  genesisPeers: 5,
  refresh: 6 * 60 * 60_000,
  lost: 15 * 60_000,
}

const atOnce = 3
const hour = 60 * 60_000

export class CoordinatorDuties {
  /** Since when nodes could have been heard. */
  since = 0
  readonly #coordinator: SimulatedCoordinator
  readonly #decisions: Decisions

  constructor(coordinator: SimulatedCoordinator, decisions: Decisions) {
    this.#coordinator = coordinator
    this.#decisions = decisions
  }

  get #tables(): Tables {
    return this.#coordinator.tables
  }

  get #now(): number {
    return this.#coordinator.world.now
  }

  /** Decides what is due and writes it down; says how much that was. */
  round(): number {
    this.#expire()
    const views = this.#views()
    return this.#move(views) + this.#clear() + this.#releaseLeavers(views)
  }

  mayGo(node: string, kind: 'leave' | 'reboot'): boolean {
    const views = this.#views()
    const stranded =
      kind === 'leave' ? strandedByLeaving(views, node, rules) : withoutNode(views, node, rules)
    return stranded.length === 0
  }

  /** What agents have to be told, from the tables alone. */
  *errands(): Iterable<{ node: string; instruction: Instruction }> {
    for (const { ward, guardian, epoch, state, errand: id } of this.#tables.wardKeys) {
      if (state !== 'asked' && state !== 'retiring') continue
      const action = state === 'asked' ? 'prepare' : 'retire'
      yield { node: guardian, instruction: { kind: 'ward', action, ward, epoch, id } }
    }
    for (const { ward, state, order: set } of this.#tables.reshares)
      if (state === 'ordered' && set !== undefined)
        yield { node: ward, instruction: { kind: 'reshare', set } }
  }

  keepKey(guardian: string, { ward, epoch, key }: Told & { kind: 'ward-key' }): void {
    const { reshares, wardKeys } = this.#tables
    const preparing = (each: ReshareRow) =>
      each.ward === ward && each.epoch === epoch && each.state === 'preparing'
    if (!reshares.some(preparing)) return
    for (const row of wardKeys) {
      if (row.ward !== ward || row.epoch !== epoch || row.guardian !== guardian) continue
      if (row.state !== 'asked' && row.state !== 'made') continue
      row.state = 'made'
      row.key = key
    }
  }

  noteAnswer(node: string, { id, ok, code = '' }: Told & { kind: 'result' }): void {
    const tables = this.#tables
    const key = tables.wardKeys.find(({ errand, guardian }) => errand === id && guardian === node)
    if (key !== undefined && !ok && key.state === 'asked')
      Object.assign(key, { state: 'refused', code })
    if (key !== undefined && ok && key.state === 'retiring')
      tables.wardKeys = tables.wardKeys.filter((row) => row !== key)
    const reshare = tables.reshares.find((row) => row.id === id && row.ward === node)
    if (reshare?.state === 'ordered' && !ok) reshare.code = code
  }

  /** As coordinator/src/ward-keys.ts `endKeys`. */
  endKeys(node: string): void {
    const tables = this.#tables
    const row = tables.nodes.get(node)
    if (row === undefined) return
    tables.noteSet(row)
    row.guardians = []
    tables.retire(tables.keysOf(node))
    tables.wardKeys = tables.wardKeys.filter(({ guardian }) => guardian !== node)
  }

  /** An enrolment has failed: its record goes. */
  forgetNode(node: string): void {
    this.endKeys(node)
    this.#tables.nodes.delete(node)
  }

  #expire(): void {
    const tables = this.#tables
    for (const row of tables.enrolments) {
      const open = row.state !== 'enrolled' && row.state !== 'failed'
      if (!open || row.expires > this.#now) continue
      tables.write(() => {
        row.state = 'failed'
        this.forgetNode(row.node)
      })
    }
    for (const row of tables.commands.values()) {
      const open = row.state !== 'done' && row.state !== 'failed' && row.state !== 'expired'
      if (open && row.expires <= this.#now)
        tables.write(() => {
          row.state = this.#decisions.nextCommandState(row.state, 'expired')
        })
    }
  }

  #views(): NodeViews {
    const { nodes, commands, enrolments, wardKeys } = this.#tables
    const going = new Map<string, string>()
    for (const { node, command, state } of commands.values())
      if (state === 'preparing' || state === 'waiting' || state === 'sent' || state === 'running')
        going.set(node, command)
    const waiting = new Set(
      enrolments
        .filter(({ state, genesis }) => state !== 'enrolled' && state !== 'failed' && !genesis)
        .map(({ node }) => node),
    )
    const leaves = (id: string) => going.get(id) === 'leave'
    const shared = new Set(
      wardKeys
        .filter((row) => row.state !== 'retiring' && leaves(row.guardian))
        .map(({ ward }) => ward),
    )
    return new Map(
      [...nodes.values()].map((row): [string, NodeView] => {
        const { instance: _, ...known } = row
        return [
          row.node,
          {
            ...known,
            name: row.node,
            connected: this.#tables.isConnected(row),
            waiting: row.phase === 'enrolling' && waiting.has(row.node),
            leaving: leaves(row.node),
            sharedWithLeaver: shared.has(row.node) || row.guardians.some(leaves),
            rebooting: going.get(row.node) === 'reboot',
          },
        ]
      }),
    )
  }

  #move(views: NodeViews): number {
    const tables = this.#tables
    const active = new Set(
      tables.reshares
        .filter(({ state }) => state === 'preparing' || state === 'ordered' || state === 'retiring')
        .map(({ ward }) => ward),
    )
    const history = (ward: string) => this.#history(ward, active.has(ward), views.get(ward))
    const due = this.#decisions.needs({ now: this.#now, since: this.since, views, rules, history })
    const planned = (ward: string) =>
      tables.reshares.some((row) => row.ward === ward && row.state === 'planned')
    const fresh = due.filter(({ ward }) => !planned(ward) && !active.has(ward))
    if (fresh.length > 0)
      tables.write(() => {
        for (const { ward, cause } of fresh)
          tables.reshares.push({
            ...{ id: tables.id('reshare'), ward, cause, state: 'planned', since: this.#now },
            ...{ epoch: 0, threshold: 0, guardians: [], blamed: [] },
          })
      })
    const waiting = due.map(({ ward }) => ward).filter(planned)
    const busy = tables.reshares.filter((row) => holdsSlot(row, this.#now)).length
    const turns = new Set(waiting.slice(0, Math.max(0, atOnce - busy)))
    const wards = new Set(due.map(({ ward }) => ward))
    return fresh.length + this.#decideAll(views, turns, wards)
  }

  #history(ward: string, active: boolean, view: NodeView | undefined) {
    const own = this.#tables.reshares.filter((row) => row.ward === ward)
    const done = own.filter(({ state }) => state === 'done')
    const failed = own.filter(
      ({ state, since, epoch }) =>
        state === 'failed' && since > this.#now - 6 * hour && epoch > (view?.epoch ?? 0),
    )
    return {
      active,
      doneAt: done.at(-1)?.since,
      failures: failed.length,
      failedAt: failed.at(-1)?.since ?? Number.NEGATIVE_INFINITY,
    }
  }

  #decideAll(views: NodeViews, turns: ReadonlySet<string>, due: ReadonlySet<string>): number {
    const load = loadOf(views.values())
    const candidates = [...views.values()].filter(mayGuard)
    const avoid = new Set(
      this.#tables.reshares.flatMap(({ state, since, blamed }) =>
        state === 'failed' && since > this.#now - hour / 4 ? blamed : [],
      ),
    )
    let applied = 0
    for (const row of [...this.#tables.reshares]) {
      const ward = views.get(row.ward)
      // As `readReshares`: of those that are over, only failed ones that were carried out all the same.
      const late = row.state === 'failed' && row.order !== undefined && ward?.epoch === row.epoch
      if (row.state === 'done' || (row.state === 'failed' && !late)) continue
      const facts: Facts = {
        ...{ now: this.#now, ward, views, rules },
        keys: this.#tables.keysOf(row.ward),
        free: turns.has(row.ward),
        due: due.has(row.ward),
        nextEpoch: this.#decisions.nextEpoch(this.#usedEpoch(row.ward), ward?.epoch ?? 0),
        choose: () =>
          ward === undefined
            ? []
            : this.#decisions.chooseGuardians(ward, candidates, rules, { load, avoid }),
      }
      const decision = this.#decisions.decide(row, facts)
      if (decision === undefined) continue
      this.#tables.write(() => this.#apply(row, decision))
      applied += 1
    }
    return applied
  }

  #usedEpoch(ward: string): number {
    const epochs = this.#tables.reshares
      .filter((row) => row.ward === ward)
      .map(({ epoch }) => epoch)
    return Math.max(0, ...epochs)
  }

  #apply(row: ReshareRow, decision: Decision): void {
    const tables = this.#tables
    const { world } = this.#coordinator
    world.note(`coordinator: ${row.id} of ${row.ward} is ${decision.to}`)
    if (decision.to === 'dropped') {
      tables.reshares = tables.reshares.filter((each) => each !== row)
      return
    }
    if (decision.to === 'planned') {
      row.message = decision.message
      return
    }
    if (decision.to === 'preparing') this.#prepare(row, decision)
    if (decision.to === 'ordered') row.order = this.#orderOf(row)
    if (decision.to === 'retiring')
      tables.retire(tables.keysOf(row.ward).filter(({ epoch }) => epoch < row.epoch))
    if (decision.to === 'failed') this.#fail(row, decision)
    row.state = decision.to
    row.since = this.#now
  }

  #prepare(row: ReshareRow, { epoch, threshold, guardians }: Decision & { to: 'preparing' }): void {
    const tables = this.#tables
    const before = this.#usedEpoch(row.ward)
    if (epoch <= before)
      this.#coordinator.world.fail(`epoch ${epoch} of ${row.ward} after epoch ${before}`)
    Object.assign(row, { epoch, threshold, guardians: [...guardians] })
    for (const guardian of guardians)
      tables.wardKeys.push({
        ...{ ward: row.ward, epoch, guardian },
        ...{ state: 'asked', errand: tables.id('errand') },
      })
    const ward = tables.nodes.get(row.ward)
    if (ward !== undefined) tables.noteSet(ward)
  }

  #orderOf({ id, ward, epoch, threshold }: ReshareRow): GuardianSet {
    const keys = this.#tables.keysOf(ward).filter((row) => row.epoch === epoch)
    const guardians = keys.map(({ guardian: node, key = '' }) => ({
      ...{ node, addresses: ['https://192.0.2.1:9998'], identity: '', key: { kid: key } },
      signature: '',
    }))
    return { id, epoch, threshold, guardians }
  }

  #fail(row: ReshareRow, { code, blamed }: Decision & { to: 'failed' }): void {
    const tables = this.#tables
    Object.assign(row, { code, blamed: [...blamed] })
    const keys = tables.keysOf(row.ward)
    if (code === 'reshare.ward_gone') {
      tables.retire(keys)
      return
    }
    if (row.state !== 'preparing') return
    // They go where the guardian has no other key of that ward: the one in use would go as well.
    const living = keys.filter(({ state }) => state !== 'retiring')
    const others = new Set(
      living.filter(({ epoch }) => epoch !== row.epoch).map(({ guardian }) => guardian),
    )
    tables.retire(living.filter((key) => key.epoch === row.epoch && !others.has(key.guardian)))
  }

  /** Keys of and at nodes that have left or were wiped. */
  #clear(): number {
    const tables = this.#tables
    const ended = [...tables.nodes.values()].filter(
      ({ phase }) => phase === 'left' || phase === 'wiped',
    )
    const due = ended.filter(
      ({ node, guardians }) =>
        guardians.length > 0 ||
        tables.wardKeys.some(
          (row) => row.guardian === node || (row.ward === node && row.state !== 'retiring'),
        ),
    )
    for (const { node } of due) tables.write(() => this.endKeys(node))
    return due.length
  }

  #releaseLeavers(views: NodeViews): number {
    const tables = this.#tables
    let released = 0
    for (const row of tables.commands.values()) {
      if (row.state !== 'preparing') continue
      const { node } = row
      const guarded = [...views.values()].some(
        (view) =>
          (view.phase === 'open' || view.phase === 'locked') && view.guardians.includes(node),
      )
      if (guarded || tables.wardKeys.some(({ guardian }) => guardian === node)) continue
      tables.write(() => {
        row.state = 'waiting'
      })
      released += 1
    }
    return released
  }
}
