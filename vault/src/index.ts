export { type Adopted, type AdoptOptions, adoptVault } from './adopt.ts'
export * from './bind.ts'
export { type Created, type CreateOptions, createVault } from './create.ts'
export {
  closeMapping,
  hasDeviceMapper,
  type KeyDerivation,
  luksType,
  readUuid,
  type VolumeRef,
} from './cryptsetup.ts'
export { vaultFault } from './faults.ts'
export { type FleetEvent, type FleetRekey, type FleetResult, rekeyFleet } from './fleet.ts'
export * from './header-index.ts'
export {
  type ListedSlot,
  listVault,
  type RecoveryWay,
  recoveryWays,
  type Standing,
  type VaultListing,
} from './list.ts'
export { type Maintained, maintainVault, resumeVault, type Settled } from './maintain.ts'
export * from './offline.ts'
export { passVault } from './pass.ts'
export { type RehearsedWay, rehearseVault, type VaultRehearsal } from './rehearse.ts'
export { type ReportedBinding, type ReportedServer, reportVault } from './report.ts'
export type { CompletedChange, Proof, VaultDeps } from './state.ts'
export { type UnbindOptions, unbindVault } from './unbind.ts'
export { type Unlocked, type UnlockOptions, unlockVault } from './unlock.ts'
