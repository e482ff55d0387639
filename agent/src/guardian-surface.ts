/**
 * Guarding alone, without the rest of a node: what a process needs that answers wards, or asks guardians
 * in their name.
 */
export { Guardian, type GuardianDeps } from './guardian.ts'
export {
  type GuardianServer,
  type GuardianServerOptions,
  openGuardianServer,
} from './guardian-server.ts'
export type { WardIdentity } from './peer-client.ts'
export { peerPin } from './peer-pin.ts'
export { ReleaseLog } from './release-log.ts'
export { WardKeys } from './ward-keys.ts'
