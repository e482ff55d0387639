import { Fleet, realMachines, type StateMachines } from './fleet.ts'
import type { SimulatedNode } from './node.ts'
import { World } from './world.ts'

// One history of a fleet: it is enrolled, lives through hours of faults and orders, and is then left in
// peace until it has settled. What breaks a rule on the way ends it with the seed.

export interface SimulationOptions {
  seed: number
  /** Broken state machines, to see that they are caught. */
  machines?: Partial<StateMachines>
  /** Hours of faults. Default 2. */
  hours?: number
}

export interface SimulationResult {
  seed: number
  /** What happened, line by line; made when it is asked for. */
  trace: () => readonly string[]
  powerCuts: number
  /** Re-shares that were carried out, and those that failed on the way. */
  reshares: number
  failed: number
  /** Commands by their ends. */
  commands: Readonly<Record<string, number>>
  /** Nodes that were lost, left or were wiped. */
  ended: number
  /** Virtual milliseconds from the last fault until everything had settled. */
  settledWithin: number
}

const minute = 60_000
const firstNodes = 8
const mostNodes = 11
/** How long it may take after the last fault: an order to a node that is lost ends after a day. */
const peace = 26 * 60 * minute

/** Lives one history. @throws SimulationFailure */
export function simulate({ seed, machines = {}, hours = 2 }: SimulationOptions): SimulationResult {
  const world = new World(seed)
  const fleet = new Fleet(world, { ...realMachines, ...machines })
  for (const instance of fleet.coordinators) instance.start()
  for (let index = 0; index < firstNodes; index += 1) {
    fleet.enrol()
    world.runUntil(world.now + world.between(1_000, 3 * minute))
  }
  const end = world.now + hours * 60 * minute
  while (world.now < end) {
    world.runUntil(world.now + world.between(1_000, 4 * minute))
    trouble(fleet)
  }
  const quiet = calmDown(fleet)
  checkCommands(fleet)
  return resultOf(fleet, quiet)
}

/** One thing goes wrong, or somebody orders something. */
function trouble(fleet: Fleet): void {
  const { world, coordinators, coordinator, partitions } = fleet
  const node = world.pick(fleet.members)
  const instance = world.pick(coordinators)
  if (node === undefined || instance === undefined) return
  const dice = world.random()
  if (dice < 0.2) node.goDark()
  else if (dice < 0.26) instance.goDark()
  else if (dice < 0.36) partitions.cut(node.name, instance.name, world.between(1_000, 40 * minute))
  else if (dice < 0.46) {
    const other = world.pick(fleet.members)
    if (other !== undefined)
      partitions.cut(node.name, other.name, world.between(1_000, 40 * minute))
  } else if (dice < 0.5) loseForGood(fleet, node)
  else if (dice < 0.54) for (const each of fleet.members) each.goDark()
  else if (dice < 0.6 && fleet.nodes.size < mostNodes && coordinator.on) fleet.enrol()
  else if (dice < 0.64) order(fleet, node, 'leave')
  else if (dice < 0.67) order(fleet, node, 'reset')
  else if (dice < 0.72) order(fleet, node, 'reboot')
  else if (dice < 0.85) order(fleet, node, 'act')
  else if (dice < 0.89) freeze(fleet, node, true)
  else if (dice < 0.95) for (const each of fleet.members) freeze(fleet, each, false)
}

function loseForGood(fleet: Fleet, node: SimulatedNode): void {
  if (fleet.canLose(node)) node.goDark(true)
}

function order(
  fleet: Fleet,
  node: SimulatedNode,
  command: 'leave' | 'reset' | 'reboot' | 'act',
): void {
  const { coordinator } = fleet
  if (!coordinator.on) return
  // People do not take more nodes away than the fleet can bear, besides what the coordinator refuses.
  if ((command === 'reset' || command === 'leave') && !fleet.canLose(node)) return
  coordinator.attempt(() => coordinator.order(node.name, command))
}

function freeze(fleet: Fleet, node: SimulatedNode, frozen: boolean): void {
  const { coordinator } = fleet
  if (!coordinator.on || (frozen && !fleet.canLose(node))) return
  coordinator.attempt(() => coordinator.freeze(node.name, frozen))
}

/** No more faults: everything comes back, people tidy up, and the fleet has to settle. */
function calmDown(fleet: Fleet): number {
  const { world, coordinators, partitions } = fleet
  world.calm = true
  world.note('the world is calm')
  const began = world.now
  partitions.heal()
  // One instance alone has to do, sometimes.
  if (world.chance(0.5)) world.pick(coordinators)?.goDark(true)
  for (const instance of coordinators) instance.wake()
  const { coordinator } = fleet
  for (const node of fleet.nodes.values()) node.wake()
  let problem: string | undefined = 'it has not begun'
  while (world.now < began + peace && problem !== undefined) {
    fleet.replaceForgotten()
    for (const node of fleet.members) freeze(fleet, node, false)
    for (const node of fleet.nodes.values())
      if (node.hasEnded) coordinator.attempt(() => coordinator.remove(node.name))
    world.runUntil(world.now + 5 * minute)
    problem = fleet.unsettled()
  }
  if (problem !== undefined) world.fail(`after ${peace / 60 / minute} quiet hours: ${problem}`)
  return world.now - began
}

/** Whatever was ordered was acted on once or not at all, and a success means that it was. */
function checkCommands({ world, nodes, coordinator }: Fleet): void {
  for (const { id, node, command, state } of coordinator.tables.commands.values()) {
    const ends = command === 'leave' || command === 'reset'
    if (ends && state === 'done' && nodes.get(node)?.hasEnded !== true)
      world.fail(`${id} is done and ${node} lives on`)
    if (ends) continue
    const times = nodes.get(node)?.uplink.acted.get(id) ?? 0
    if (times > 1) world.fail(`${id} was acted on ${times} times`)
    if (state === 'done' && times === 0) world.fail(`${id} is done and was never acted on`)
  }
}

function resultOf(fleet: Fleet, settledWithin: number): SimulationResult {
  const { world, coordinator, nodes } = fleet
  const { reshares, commands: rows } = coordinator.tables
  const commands: Record<string, number> = {}
  for (const { state } of rows.values()) commands[state] = (commands[state] ?? 0) + 1
  return {
    seed: world.seed,
    trace: () => world.trace,
    powerCuts: world.powerCuts,
    reshares: reshares.filter(({ state }) => state === 'done').length,
    failed: reshares.filter(({ state }) => state === 'failed').length,
    commands,
    ended: [...nodes.values()].filter((node) => node.hasEnded).length,
    settledWithin,
  }
}
