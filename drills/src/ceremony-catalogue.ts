import { holderAirGap } from './ceremony-air-gap.ts'
import { answersRefused } from './ceremony-answers.ts'
import { recoveryRestarted, recoveryTwoInstances } from './ceremony-interrupted.ts'
import { holderOpenssl } from './ceremony-openssl.ts'
import { recoverySingleHolder, recoveryThreeOfFive } from './ceremony-recovery.ts'
import { holderToken } from './ceremony-token.ts'
import type { Drill } from './drill.ts'

/** What can happen to a coordinator and its holders, in the order of the guide. */
export const ceremonyDrills: readonly Drill[] = [
  recoverySingleHolder,
  recoveryThreeOfFive,
  recoveryRestarted,
  recoveryTwoInstances,
  answersRefused,
  holderOpenssl,
  holderToken,
  holderAirGap,
]
