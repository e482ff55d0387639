export { drills, runDrill } from './catalogue.ts'
export {
  ControlPlane,
  type ControlPlaneOptions,
  type NodeView,
  startControlPlane,
} from './control-plane.ts'
export type { Drill, DrillContext, DrillResult } from './drill.ts'
export * from './exposure.ts'
export {
  type ExposureReport,
  type ExposureWork,
  exposurePlanOf,
  respondToExposure,
  waysOf,
} from './exposure-apply.ts'
export { drillsFault } from './faults.ts'
export type * from './fleet.ts'
export { FleetNode, type NodeEvent } from './fleet-node.ts'
export type { ControlPlaneState, NodeState } from './fleet-nodes.ts'
export { isGuarded, startWholeFleet, stepsOf, type WholeFleet } from './fleet-whole.ts'
export { startLocalFleet } from './local-fleet.ts'
export type { Evidence } from './timeline.ts'
