import { step } from '@holdfast/agent'
import { chooseGuardians, decide, needs, nextCommandState } from '@holdfast/coordinator/decisions'
import type { Enrolment } from '@holdfast/protocol/frames'
import { isUnderWay, SimulatedCoordinator } from './coordinator.ts'
import type { Way } from './disk.ts'
import { type Decisions, rules } from './duties.ts'
import { Partitions } from './network.ts'
import { SimulatedNode, type Surroundings } from './node.ts'
import { Store } from './rows.ts'
import type { World } from './world.ts'

// The simulated fleet with its invariants: what must hold after every durable change of any machine, and
// what must be true in the end.

/** The state machines; tests give broken ones to see that they are caught. */
export interface StateMachines extends Decisions {
  step: typeof step
  /** Which of its coordinators a node tries when one has not answered. */
  nextCoordinator: (turn: number) => number
}

export const realMachines: StateMachines = {
  ...{ step, needs, decide, chooseGuardians, nextCommandState },
  nextEpoch: (used, reported) => Math.max(used, reported) + 1,
  nextCoordinator: (turn) => turn + 1,
}

export class Fleet {
  readonly world: World
  readonly nodes = new Map<string, SimulatedNode>()
  /** Two instances over one store. */
  readonly coordinators: readonly [SimulatedCoordinator, SimulatedCoordinator]
  readonly partitions: Partitions
  readonly #machines: StateMachines
  /** Whoever was found to be in order since the last change is not looked at again. */
  #made = 0

  constructor(world: World, machines: StateMachines) {
    this.world = world
    this.#machines = machines
    this.partitions = new Partitions(world)
    const store = new Store()
    const instance = (name: string) => new SimulatedCoordinator(world, name, store, machines)
    this.coordinators = [instance('coordinator-1'), instance('coordinator-2')]
  }

  /** The instance that people talk to: one that runs, if any does. */
  get coordinator(): SimulatedCoordinator {
    return this.coordinators.find(({ on }) => on) ?? this.coordinators[0]
  }

  /** A new machine is enrolled. */
  enrol(): SimulatedNode {
    this.#made += 1
    const name = `node-${this.#made}`
    const node = new SimulatedNode(name, this.#around())
    this.nodes.set(name, node)
    // Until there are enough who could guard it, a node begins with the holders' temporary way.
    const peers = Math.max(rules.genesisPeers, rules.threshold + rules.margin)
    const genesis = this.coordinator.tables.nodes.size < peers
    this.coordinator.attempt(() => this.coordinator.enrol(name, `rack-${this.#made % 3}`, genesis))
    node.accept(enrolment(name, genesis))
    return node
  }

  /**
   * Machines that the coordinator does not know any more, because their enrolment took too long: people
   * put them back to the factory, and they come as new ones.
   */
  replaceForgotten(): void {
    for (const node of this.members) {
      const { phase, task } = node.state
      if (phase !== 'factory' && task?.kind !== 'enrol') continue
      if (this.coordinator.tables.nodes.has(node.name)) continue
      node.goDark(true)
      this.enrol()
    }
  }

  /** Members that are to be there in the end. */
  get members(): SimulatedNode[] {
    return [...this.nodes.values()].filter((node) => !node.hasEnded)
  }

  /** True when the loss of this node leaves every ward with as many guardians as it needs. */
  canLose(lost: SimulatedNode): boolean {
    const doomed = new Set([lost.name, ...this.coordinator.tables.toEnd()])
    const left = this.members.filter(({ name }) => !doomed.has(name))
    // Whoever is still being enrolled can guard nobody.
    const guards = left.filter(({ disk }) => disk.holdsData).length
    if (guards < rules.threshold + rules.margin + 2) return false
    const living = new Set(left.map(({ name }) => name))
    const enough = (guardians: Iterable<string>, threshold: number) =>
      [...guardians].filter((id) => living.has(id)).length >= threshold
    // Also the sets that are being made: whoever is ordered one may carry it out at any time.
    const made = this.coordinator.tables.reshares.every(
      ({ state, ward, guardians, threshold }) =>
        state === 'planned' ||
        state === 'done' ||
        !living.has(ward) ||
        enough(guardians, threshold),
    )
    // Whoever was told to leave stores its data until it does, and that may take a while.
    const wards = this.members.filter((ward) => ward !== lost)
    return (
      made &&
      wards.every((ward) =>
        [...ward.disk.ways.values()].every(
          ({ epoch, guardians, threshold }) => epoch === 0 || enough(guardians.keys(), threshold),
        ),
      )
    )
  }

  /** Whoever stores data has a proven way in, and enough guardians for it. */
  check(): void {
    for (const node of this.nodes.values()) if (node.disk.holdsData) this.#checkWard(node)
  }

  #around(): Surroundings {
    const { world, partitions, coordinators } = this
    const { step, nextCoordinator } = this.#machines
    return {
      ...{ world, partitions, coordinators, step, nextCoordinator },
      check: () => this.check(),
      retired: (guardian, ward, epoch) => this.#checkRetired(guardian, ward, epoch),
      peer: (node) => this.nodes.get(node),
    }
  }

  #checkWard(node: SimulatedNode): void {
    if (node.hasEnded) return
    const { disk } = node
    const ways = [...disk.ways.values()]
    // Until peers guard it, the holders do, with a way in of their own.
    if (disk.holdersProven && node.state.set === undefined) return
    if (!ways.some(({ proven }) => proven)) this.world.fail(`${node.name} has no proven way in`)
    const opens = (way: Way) =>
      way.proven && (way.epoch === 0 || this.#holders(node, way) >= way.threshold)
    if (ways.some(opens)) return
    const counts = ways.map((way) => `epoch ${way.epoch}: ${this.#holders(node, way)}`)
    this.world.fail(`${node.name} has too few living guardians (${counts.join(', ')})`)
  }

  /** Guardians that have the very key and are not lost; a dark one comes back. */
  #holders({ name }: SimulatedNode, { epoch, guardians }: Way): number {
    return [...guardians].filter(([id, key]) => {
      const guardian = this.nodes.get(id)
      return guardian !== undefined && !guardian.hasEnded && guardian.keys.has(name, epoch, key)
    }).length
  }

  #checkRetired(guardian: string, ward: string, epoch: number): void {
    this.world.note(`${guardian} has no key of ${ward} for epoch ${epoch} any more`)
    const node = this.nodes.get(ward)
    if (node?.disk.holdsData !== true || node.hasEnded) return
    const ways = [...node.disk.ways.values()]
    const needed = ways.some((way) => way.epoch === epoch && way.guardians.has(guardian))
    if (needed && !ways.some((way) => way.epoch > epoch && way.proven))
      this.world.fail(`${guardian} retires epoch ${epoch} of ${ward} before a later one is proven`)
    this.check()
  }

  /** Why the fleet has not settled, or undefined when it has. */
  unsettled(): string | undefined {
    const { tables } = this.coordinator
    for (const { node, state } of tables.enrolments)
      if (isUnderWay(state)) return `the enrolment of ${node} is ${state}`
    for (const { id, state } of tables.commands.values())
      if (state !== 'done' && state !== 'failed' && state !== 'expired') return `${id} is ${state}`
    for (const { id, ward, state } of tables.reshares)
      if (this.nodes.get(ward)?.hasEnded === false && state !== 'done' && state !== 'failed')
        return `${id} of ${ward} is ${state}`
    for (const node of this.nodes.values()) {
      const problem = node.hasEnded ? undefined : this.#unsettledMember(node)
      if (problem !== undefined) return `${node.name}: ${problem}`
    }
    return undefined
  }

  #unsettledMember(node: SimulatedNode): string | undefined {
    const { phase, task, set } = node.state
    if (phase !== 'open' || task !== undefined)
      return `${phase}, ${task?.kind ?? ''} ${task?.step ?? ''}`
    if (set === undefined) return 'nobody guards it'
    if (!this.coordinators.some((each) => each.on && each.holds(node.name)))
      return 'no instance holds it'
    const row = this.coordinator.tables.nodes.get(node.name)
    if (row?.epoch !== set.epoch) return `the tables say epoch ${row?.epoch} of it`
    const automatic = [...node.disk.ways.values()]
    if (automatic.length !== 1 || automatic[0]?.epoch !== set.epoch) return 'old ways in are left'
    // A lost one may stay in a set that is as large without it as a new one would be.
    const living = set.guardians.filter(({ node: id }) => this.nodes.get(id)?.hasEnded === false)
    const wanted = Math.min(rules.count, this.members.length - 1)
    if (living.length < wanted) return `${living.length} living guardians of ${wanted}`
    return undefined
  }
}

function enrolment(name: string, genesis: boolean): Enrolment {
  return {
    cluster: 'c'.repeat(22),
    ...{ name, genesis },
    ...{ certificate: '', authority: '', commandKey: '', address: '10.88.0.2/16' },
    coordinators: ['https://192.0.2.1:8443', 'https://192.0.2.2:8443'],
    coordinatorIdentity: 'i'.repeat(43),
  }
}
