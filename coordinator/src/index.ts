export { Coordinator, type CoordinatorOptions } from './coordinator.ts'
export { coordinatorFault } from './faults.ts'
export { filePin } from './file-pin.ts'
export type { Store, StoreLocation } from './store.ts'
