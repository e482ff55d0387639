export { verifyChain } from './audit.ts'
export { readSinkFile } from './audit-sink.ts'
export {
  BackupCheck,
  type BackupReport,
  type BackupSource,
  backupFile,
  verifyBackup,
} from './backup-check.ts'
export type { CeremonyDeps } from './ceremonies.ts'
export { prepareClaim } from './claim.ts'
export { Coordinator, type CoordinatorOptions } from './coordinator.ts'
export { coordinatorFault } from './faults.ts'
export { filePin } from './file-pin.ts'
export { makeAnswerFile, readRequestFile } from './holder-file.ts'
export { joinCluster, prepareJoin } from './join.ts'
export { manifestDigest, readManifest } from './manifest-diff.ts'
export { proposeManifest } from './manifests.ts'
export { removeOaep } from './oaep.ts'
export { type RestoreOptions, restoreBackup } from './restore.ts'
export { keepResuming, resume } from './resume.ts'
export { type RunningServer, type ServerOptions, serveApi } from './server.ts'
export { locateStore, type RunningService, runService, type ServiceOptions } from './service.ts'
export { approval, shareAnswer } from './statement.ts'
export type { Store, StoreLocation } from './store.ts'
export { tpmCounter } from './tpm-counter.ts'
