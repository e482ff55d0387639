/**
 * What this part decides without a store, a clock or a network: pure functions over rows and views.
 * The surface for simulators, which carry the decisions out over a world of their own.
 */
export { type CommandEvent, type CommandState, nextCommandState } from './command-states.ts'
export { type EnrolmentState, enrolmentStateOf, nextEnrolmentState } from './enrolments.ts'
export * from './placement.ts'
export * from './reshare-plan.ts'
