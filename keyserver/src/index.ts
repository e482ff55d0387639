export { adminClient } from './admin-client.ts'
export {
  type Administration,
  offlineAdministration,
  type ServerStatus,
} from './administration.ts'
export { type BackupReport, type BackupRequest, backup } from './backup.ts'
export { keyserverFault } from './faults.ts'
export { type Inventory, type KeyReport, listKeys } from './inventory.ts'
export { defaultLimits, type Limits } from './limits.ts'
export type { WorkerProgram } from './pool.ts'
export { type RestoreReport, type RestoreRequest, restore } from './restore.ts'
export type { RetireOptions, RetirePlan } from './retire.ts'
export { initialise, type RotationOptions } from './rotate.ts'
export { type KeyServer, type ServeOptions, serve } from './serve.ts'
export { processChannel, runWorker } from './worker.ts'
