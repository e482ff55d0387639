export type { Clock } from './clock.ts'
export { systemClock } from './clock.ts'
export { afterRunning, runningTimeout } from './deadline.ts'
export { type Defined, defined } from './defined.ts'
export { announce, type Effect } from './effect.ts'
export { fromBase64url, toBase64url } from './encoding.ts'
export {
  Fault,
  type FaultKind,
  type FaultMaker,
  type FaultOptions,
  faults,
  isFault,
  messageOf,
} from './fault.ts'
export { baseFault } from './faults.ts'
export * from './files.ts'
export { freePort } from './free-port.ts'
export { canonicalJson, isObject, type JsonObject, parseJson, parseJsonObject } from './json.ts'
export { lock } from './lock.ts'
export { folderOfOthers, type Ownership, othersMayReplace } from './ownership.ts'
export { DurableRecord } from './record.ts'
export { type Argument, programMissing, type RunOptions, type RunResult, run } from './run.ts'
export { Secret } from './secret.ts'
export { signalProcess } from './signal.ts'
export { type RunningProgram, type StartOptions, startProgram } from './spawn.ts'
