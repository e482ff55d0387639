import type { Drill } from './drill.ts'
import { clockAt1970 } from './fleet-clock.ts'
import { nodeLeaves, resetWhileLocked } from './fleet-departure.ts'
import { tokenRaced } from './fleet-enrolment.ts'
import { genesisToPeers } from './fleet-genesis.ts'
import { guardiansLie } from './fleet-liars.ts'
import { guardianRolledBack } from './fleet-old-guardian.ts'
import { nodePanic } from './fleet-panic.ts'
import { fleetColdStart, nodeReboots } from './fleet-reboot.ts'
import { oldBackupRestored } from './fleet-rollback.ts'
import { diskCloned, stolenNodeFrozen } from './fleet-stolen.ts'

/** What can happen to the nodes of a fleet, in the order of the guide. */
export const fleetDrills: readonly Drill[] = [
  genesisToPeers,
  nodeReboots,
  fleetColdStart,
  tokenRaced,
  diskCloned,
  stolenNodeFrozen,
  clockAt1970,
  nodeLeaves,
  resetWhileLocked,
  oldBackupRestored,
  guardiansLie,
  guardianRolledBack,
  nodePanic,
]
