import { stat } from 'node:fs/promises'
import { basename, join, resolve, sep } from 'node:path'
import { isFault } from '@holdfast/base'
import type { Context } from './command.ts'
import { askFleet, type FleetReport } from './fleet-control.ts'
import { fleetDirectory } from './fleet-place.ts'

// The local fleet of `holdfast up` as the doctor sees it: which of its processes run, and the commands
// that start the others. On a real machine that is systemd's business; here it is the fleet's own.

export interface FleetHere {
  directory: string
  /** ` --directory DIR` when the fleet is not where commands look for one; otherwise empty. */
  where: string
  /** Undefined when the fleet itself has ended, or was killed. */
  processes?: FleetProcesses
}

export interface FleetProcesses {
  /** Undefined in a fleet without nodes. */
  coordinator?: { name: string; url: string; running: boolean }
  servers: readonly { name: string; running: boolean }[]
  /** So many of the servers open the volume, and each of the nodes. */
  serversNeeded: number
  nodes: readonly { name: string; running: boolean }[]
}

/** The fleet that this state directory belongs to; undefined on every other machine. */
export async function fleetHere(context: Context): Promise<FleetHere | undefined> {
  const state = resolve(context.settings.stateDirectory)
  return basename(state) === 'state' ? await fleetIn(resolve(state, '..'), context) : undefined
}

/** The fleet that a node's directory, `FLEET/nodes/NAME/node`, belongs to, and the node's name there. */
export async function fleetOfNode(
  nodeDirectory: string,
  context: Context,
): Promise<{ fleet: FleetHere; name: string } | undefined> {
  const parts = resolve(nodeDirectory).split(sep)
  const [nodes, name, node] = parts.slice(-3)
  if (nodes !== 'nodes' || node !== 'node' || name === undefined) return undefined
  const fleet = await fleetIn(parts.slice(0, -3).join(sep), context)
  return fleet === undefined ? undefined : { fleet, name }
}

async function fleetIn(directory: string, { settings }: Context): Promise<FleetHere | undefined> {
  const isFleet = await stat(join(directory, 'fleet.json')).then(
    () => true,
    () => false,
  )
  if (!isFleet) return undefined
  const where = fleetDirectory(settings) === directory ? '' : ` --directory ${directory}`
  try {
    const report = await askFleet(directory, 'status')
    return { directory, where, processes: processesOf(report) }
  } catch (error) {
    if (!isFault(error, 'cli.fleet_absent')) throw error
    return { directory, where }
  }
}

function processesOf({ status, rehearsal, control }: FleetReport): FleetProcesses {
  const needed = rehearsal?.ways.find(({ way }) => way === 'automatic')?.threshold
  const nodes = control?.nodes.map(({ name, pid }) => ({ name, running: pid !== undefined })) ?? []
  const processes = {
    servers: status.servers.map(({ name, running }) => ({ name, running })),
    serversNeeded: needed ?? 1,
    nodes,
  }
  if (control === undefined) return processes
  const { name, url, pid } = control.coordinator
  return { ...processes, coordinator: { name, url, running: pid !== undefined } }
}

/** What a holder types to take part in a ceremony. */
export const answerCommand = 'holdfast holder answer NAME --key NAME.key'

/** A command of a holder, with the keys of a local fleet where they lie. */
export function byHolder(command: string, here: FleetHere | undefined): string {
  return here === undefined ? command : command.replace(' NAME.key', ' holders/NAME.key')
}

/** Starts a coordinator or a key server of the fleet again; the fleet itself, when that has ended. */
export function startServer({ where, processes }: FleetHere, name: string): string {
  return processes === undefined ? `holdfast up${where}` : `holdfast up start ${name}${where}`
}

/** True when the fleet knows the node, and that it has no power. */
export function isOff(fleet: FleetHere | undefined, node: string): boolean {
  return fleet?.processes?.nodes.some(({ name, running }) => name === node && !running) === true
}

/** Gives a node of the fleet its power back. */
export function startNode({ where, processes }: FleetHere, name: string): string {
  return processes === undefined ? `holdfast up${where}` : `holdfast node start ${name}${where}`
}

/** How a node's own console looks at it: on a real machine it is typed there, here anywhere. */
export function consoleDoctor(fleet: FleetHere | undefined, name: string): string {
  if (fleet === undefined) return 'holdfast doctor node   # on its own console'
  return `holdfast doctor node --directory ${join(fleet.directory, 'nodes', name, 'node')}`
}
