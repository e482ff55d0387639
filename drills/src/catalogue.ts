import type { Drill, DrillContext, DrillResult } from './drill.ts'
import { nodeStolen } from './node-stolen.ts'
import { plannedOutage } from './planned-outage.ts'
import { drillNamed, perform } from './runner.ts'
import { technicianRemoteSite } from './technician.ts'
import { unplannedOutage } from './unplanned-outage.ts'

/** Every disaster that can be executed, in the order of the guide. */
export const drills: readonly Drill[] = [
  nodeStolen,
  plannedOutage,
  unplannedOutage,
  technicianRemoteSite,
]

/** Runs one drill by name. @throws Fault drills.unknown */
export async function runDrill(name: string, context: DrillContext): Promise<DrillResult> {
  return await perform(drillNamed(drills, name), context)
}
