import { backupPassphrase } from './backup-passphrase.ts'
import { ceremonyDrills } from './ceremony-catalogue.ts'
import type { Drill, DrillContext, DrillResult } from './drill.ts'
import { enrolDegraded, enrolOffline } from './enrolment.ts'
import { fiveRegions } from './five-regions.ts'
import { fleetDrills } from './fleet-catalogue.ts'
import { headerDestroyed } from './header-destroyed.ts'
import { keyExposure } from './key-exposure.ts'
import { keysCarriedToSite } from './keys-carried.ts'
import { nodeStolen } from './node-stolen.ts'
import { panicLevels } from './panic-levels.ts'
import { plannedOutage } from './planned-outage.ts'
import { drillNamed, perform } from './runner.ts'
import { serverRebuilt } from './server-rebuilt.ts'
import { sharedSetLost, sharedSetMemberKilled } from './shared-set.ts'
import { technicianRemoteSite } from './technician.ts'
import { unplannedOutage } from './unplanned-outage.ts'

/** What happens to disks, key servers and machines, in the order of the guide. */
export const disasters: readonly Drill[] = [
  nodeStolen,
  plannedOutage,
  unplannedOutage,
  technicianRemoteSite,
  keysCarriedToSite,
  backupPassphrase,
  sharedSetMemberKilled,
  sharedSetLost,
  enrolDegraded,
  enrolOffline,
  fiveRegions,
  serverRebuilt,
  keyExposure,
  headerDestroyed,
  panicLevels,
]

/** Every drill that can be executed, in the order of the guide. */
export const drills: readonly Drill[] = [...disasters, ...ceremonyDrills, ...fleetDrills]

/** Runs one drill by name. @throws Fault drills.unknown */
export async function runDrill(name: string, context: DrillContext): Promise<DrillResult> {
  return await perform(drillNamed(drills, name), context)
}
