import type { Context, Outcome } from './command.ts'
import type { FleetReport } from './fleet-control.ts'
import { coordinatorLine, nodesTable } from './fleet-node-table.ts'
import { fleetTable, statusLine } from './fleet-table.ts'
import { painter } from './output.ts'

/** What a second terminal is shown of the local fleet. */
export async function fleetReport(report: FleetReport, context: Context): Promise<Outcome> {
  const text = await fleetText(report, context.clock.now())
  return { json: report, text: report.did === undefined ? text : `${report.did}\n\n${text}` }
}

/** Nodes and coordinator first, then the key servers' ways in to the volume, then one line of facts. */
export async function fleetText(
  { control, rehearsal, status }: Pick<FleetReport, 'control' | 'rehearsal' | 'status'>,
  now: number,
): Promise<string> {
  const paint = painter()
  return [
    ...(control === undefined
      ? []
      : [await nodesTable(control, paint, now), coordinatorLine(control, paint), '']),
    ...(rehearsal === undefined ? [] : [await fleetTable(rehearsal, paint, now)]),
    statusLine(status, paint),
  ].join('\n')
}
