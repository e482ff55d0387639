import { holderAirGap } from './ceremony-air-gap.ts'
import { answersRefused } from './ceremony-answers.ts'
import { holdersChanged } from './ceremony-change.ts'
import { stateDismissed } from './ceremony-dismissal.ts'
import { recoveryRestarted, recoveryTwoInstances } from './ceremony-interrupted.ts'
import { junkAnswers } from './ceremony-junk.ts'
import { holderOpenssl } from './ceremony-openssl.ts'
import { recoverySingleHolder, recoveryThreeOfFive } from './ceremony-recovery.ts'
import { oldStatePutBack, onlyHoldersLeft } from './ceremony-restored.ts'
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
  junkAnswers,
  holdersChanged,
  oldStatePutBack,
  stateDismissed,
  onlyHoldersLeft,
]
