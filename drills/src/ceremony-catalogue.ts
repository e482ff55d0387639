import { recoverySingleHolder, recoveryThreeOfFive } from './ceremony-recovery.ts'
import type { Drill } from './drill.ts'

/** What can happen to a coordinator and its holders, in the order of the guide. */
export const ceremonyDrills: readonly Drill[] = [recoverySingleHolder, recoveryThreeOfFive]
