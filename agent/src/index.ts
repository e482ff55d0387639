/**
 * The agent: besides init the only process of a node that runs as root, so it carries little. Of
 * other parts: base, crypto and seal for secrets and pins, vault for the volume, link for every
 * connection, protocol for the words on them. Of libraries: zod, because what comes from outside is
 * checked before it is believed, and what link brings. No HTTP framework, no database, no logger.
 */
export { startAgent } from './agent.ts'
export type { Agent, AgentEvent, AgentOptions } from './agent-options.ts'
export { agentFault } from './faults.ts'
export { peerPort } from './guardian-server.ts'
export { type NodeKeys, publicKeys } from './identity.ts'
export { due, type Step, step } from './life.ts'
export type { LifeEffect, LifeEvent } from './life-event.ts'
export { factoryState, type GuardianSet, type LifeState, type Task } from './life-state.ts'
export { type NodeDirectory, openNodeDirectory } from './node-directory.ts'
export { inspectNodeDirectory, type NodeInspection } from './node-inspection.ts'
export { type PeerPlace, probePeer, type WardIdentity } from './peer-client.ts'
export { peerPin } from './peer-pin.ts'
export { type AgentProcess, hardwareOptions, runAgent, usualTunnel } from './process.ts'
export { countReleases, ReleaseLog, releaseLogName } from './release-log.ts'
export { WardKeys } from './ward-keys.ts'
