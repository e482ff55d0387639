import type { Context, Outcome } from './command.ts'
import { askFleet } from './fleet-control.ts'
import { fleetDirectory } from './fleet-place.ts'
import { fleetReport } from './fleet-report.ts'
import type { Input } from './input.ts'

// Power for the nodes of the local fleet that `holdfast up` runs.

/** `holdfast node kill`: a power cut; what the node had in memory is gone. */
export async function nodeKillAction(input: Input, context: Context): Promise<Outcome> {
  return await order('kill', input, context)
}

/** `holdfast node start`: power is back; the node opens by its guardians, or waits for them. */
export async function nodeStartAction(input: Input, context: Context): Promise<Outcome> {
  return await order('start', input, context)
}

async function order(what: 'kill' | 'start', input: Input, context: Context): Promise<Outcome> {
  const directory = fleetDirectory(context.settings, input.text('directory'))
  const name = encodeURIComponent(input.requiredWord(0, 'NAME'))
  return await fleetReport(await askFleet(directory, `${what}-node/${name}`), context)
}
