import type { LockedState } from '@holdfast/protocol'
import {
  type Attempt,
  failed,
  type Judged,
  names,
  ok,
  type Rule,
  warning,
} from './doctor-findings.ts'

// The layers of a node that is looked at directly, at its peer port, without a coordinator. Pure.

export interface DirectSeen {
  /** HOST:PORT as it was given. */
  at: string
  host: string
  /** HOST:PORT of its enrolment port, and whether it answers as a new machine does. */
  enrolmentAt: string
  enrolment: Attempt<true>
  /** Whether its peer port answers as an enrolled machine does. */
  peer: Attempt<true>
  state?: Attempt<LockedState>
}

export const directRules: readonly Rule<DirectSeen>[] = [
  { layer: 'enrolment', independent: true, judge: judgeEnrolment },
  { layer: 'state', judge: judgeState },
  { layer: 'ways in', judge: judgeWays },
  { layer: 'guardians', judge: judgeGuardians },
  { layer: 'vault', judge: judgeVault },
  { layer: 'theft', judge: judgeTheft },
]

/** The port is open only on a machine that is nobody's; afterwards it must be closed. */
function judgeEnrolment({ enrolment, enrolmentAt, peer, host }: DirectSeen): Judged {
  if (peer.ok) {
    return enrolment.ok
      ? warning(`${enrolmentAt} answers as a new machine does, although this one is enrolled`)
      : ok('closed, as it must be once the machine is enrolled')
  }
  if (enrolment.ok) {
    return failed(
      'it is a new machine that waits to be enrolled; its code stands on its console',
      `holdfast node enrol ${enrolmentAt} --name NAME`,
    )
  }
  return failed(
    'a new machine listens on 9999 and an enrolled one on 9998, and neither answers: the machine is off, its agent does not run, or a firewall of the provider is in between. 9999/tcp must be open to the coordinator for enrolment',
    `nc -vz -w 5 ${host} 9999`,
    'holdfast doctor node   # on its own console',
  )
}

function judgeState({ state, at }: DirectSeen): Judged | undefined {
  if (state === undefined) return undefined
  if (!state.ok) return failed(`${at} does not tell its state (${state.code}): ${state.message}`)
  const { name, phase, task, held, epoch, network } = state.value
  const doing = task === undefined ? '' : `, at ${task}`
  const text = `${name} is ${phase}${doing}, epoch ${epoch}, network ${network}`
  if (held !== undefined) return warning(`${text}; held: ${held}`)
  if (phase === 'rescue' || phase === 'left' || phase === 'wiped') {
    return failed(`${text}: ${state.value.needs.join('; ') || 'it does not go on by itself'}`)
  }
  return ok(text)
}

function lockedOf({ state }: DirectSeen): LockedState | undefined {
  return state?.ok === true ? state.value : undefined
}

function judgeWays(seen: DirectSeen): Judged | undefined {
  const state = lockedOf(seen)
  if (state === undefined) return undefined
  const { recovery } = state
  if (recovery.length > 0) return ok(`${recovery.length} through the holders`)
  return warning('its header shows no way through the holders, or it cannot be read')
}

function judgeGuardians(seen: DirectSeen): Judged | undefined {
  const progress = lockedOf(seen)?.progress
  if (progress === undefined)
    return ok(lockedOf(seen)?.epoch === 0 ? 'it has none yet' : 'it asks none now')
  const { answered, missing, threshold, attempts } = progress
  const text = `${answered.length} of ${answered.length + missing.length} answered, ${threshold} needed, attempt ${attempts}`
  if (answered.length >= threshold) return ok(text)
  const who = missing.map(({ guardian, reason }) => `${guardian.slice(0, 12)}: ${reason}`)
  return failed(`${text}; ${names(who, 4)}`, ...unlockHere(seen))
}

function judgeVault(seen: DirectSeen): Judged | undefined {
  const state = lockedOf(seen)
  if (state === undefined) return undefined
  const { phase, needs, lastErrors, wrongKeys, held } = state
  const wrong = wrongKeys === 0 ? '' : `; ${wrongKeys} wrong keys were pushed`
  if (phase === 'open') return wrong === '' ? ok('open') : warning(`open${wrong}`)
  if (phase !== 'locked') return ok(`the node is ${phase}`)
  const why = held ?? lastErrors[0] ?? 'it has not said why'
  return failed(
    `locked: ${why}${wrong}${needs.length === 0 ? '' : `; ${needs.join('; ')}`}`,
    ...unlockHere(seen),
  )
}

/** What people can type from where they are. */
function unlockHere(seen: DirectSeen): string[] {
  const node = lockedOf(seen)?.node ?? 'ID'
  return [`holdfast node unlock --at ${seen.at} --pin ${node} --key FILE --key FILE`]
}

function judgeTheft(seen: DirectSeen): Judged | undefined {
  const state = lockedOf(seen)
  if (state === undefined) return undefined
  if (state.keys === 'tpm') return ok('its own keys are sealed to its TPM')
  return ok('its own keys are on its disk alone: if it is stolen, freeze it')
}
