// The public surface of header backups, wipes and LUKS1; index.ts passes it on.

export { backupPolicy } from './backup-policy.ts'
export {
  type BackupFacts,
  type BackupList,
  backupHeader,
  type HeaderBackup,
  listBackups,
  readBackup,
} from './header-backup.ts'
export type { HeaderFacts, KeyslotIdentity } from './header-format.ts'
export type { Permission } from './header-judge.ts'
export { allHeaderRecords, type HeaderRecord, headerRecord, noteExport } from './header-record.ts'
export {
  type Restored,
  type RestoreOptions,
  restoreHeader,
  resumeRestore,
} from './header-restore.ts'
export {
  destroyStaleBackups,
  keepBackups,
  type StaleBackup,
  staleBackups,
} from './header-stale.ts'
export {
  type ConversionStep,
  conversionSteps,
  type Luks1Binding,
  type Luks1Volume,
  luks1Fault,
  readLuks1,
} from './luks1.ts'
export {
  describePanic,
  executePanic,
  type PanicOptions,
  type PreparedPanic,
  preparePanic,
  resumePanic,
} from './panic.ts'
export type { PanicPlan } from './panic-plan.ts'
export { type PanicLevel, panicLevels, type Receipt, unfinishedPanics } from './panic-record.ts'
export { fateOf, readReceipts, type StoredReceipt } from './receipt.ts'
