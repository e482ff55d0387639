export { sealFault } from './faults.ts'
export { createFetch, type Fetch, type FetchLimits, type HttpReply } from './http.ts'
export {
  checkUnwrapped,
  holderRequests,
  type Inspection,
  inspect,
  knownKeys,
  lineageOf,
  policyOf,
  useOf,
} from './inspect.ts'
export {
  answerRecoveryRequest,
  makeRecoveryRequest,
  parseRecoveryRequest,
  type RecoveryRequest,
  readRecoveryAnswer,
  requestDigest,
} from './offline.ts'
export { type OpenEvent, type OpenOptions, open } from './open.ts'
export type { AskPassphrase } from './passphrase.ts'
export { type HolderAnswer, type HolderRequest, type Holders, readPublicKey } from './person.ts'
export type {
  KnownKey,
  Pin,
  PinFacts,
  Pins,
  SealedUse,
  SealOptions,
  ShareMembership,
} from './pin.ts'
export { createPins, type PinSources } from './pins.ts'
export * from './placement.ts'
export {
  formatPolicy,
  leavesOf,
  mapPins,
  type PinPolicy,
  type Policy,
  parsePolicy,
  type ThresholdPolicy,
  threshold,
} from './policy.ts'
export { type Rehearsal, type RehearseOptions, rehearse } from './rehearse.ts'
export { prove, type ResealOptions, reseal } from './reseal.ts'
export { type SealRequest, seal } from './seal.ts'
export { type ConfirmTrust, fetchAdvertisement } from './tang-trust.ts'
