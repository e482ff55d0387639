import type { ReasonCode, statusRoutes } from '@holdfast/protocol'
import type { z } from 'zod'
import { type Attempt, failed, type Judged, ok, type Rule, warning } from './doctor-findings.ts'
import { answerCommand, byHolder, type FleetHere } from './fleet-here.ts'

// The layers of a coordinator above its connection: its state, its manifest, who asks, and the people
// who could bring it back. Pure.

export type CoordinatorStatus = z.output<typeof statusRoutes.status.output>

export interface CoordinatorSeen {
  url: string
  status?: Attempt<CoordinatorStatus>
  /** Whether somebody is logged in here, and what the coordinator says to that. */
  login?: Attempt<true>
  /** The local fleet that it belongs to, if any: its holders' keys lie in its directory. */
  here?: FleetHere
}

/** What every look through a coordinator rests on. */
export const serviceRules: readonly Rule<CoordinatorSeen>[] = [
  { layer: 'state', judge: judgeState },
  { layer: 'manifest', judge: judgeManifest },
  { layer: 'user', judge: judgeUser },
]

/** What a coordinator would need on a bad day. */
export const recoveryRules: readonly Rule<CoordinatorSeen>[] = [
  { layer: 'holders', judge: judgeHolders },
  { layer: 'alarms', judge: judgeAlarms },
]

const restore = [
  'holdfast coordinator verify-backup FILE',
  'holdfast coordinator restore FILE --directory DIR',
]

/** What each reason of a coordinator that is not running means, and what helps. */
const reasons: Readonly<
  Record<Exclude<ReasonCode, 'open' | 'manifest_needed'>, { text: string; next: readonly string[] }>
> = {
  claim_needed: {
    text: 'nobody has claimed it: it is new',
    next: [
      'holdfast coordinator claim --coordinator URL --identity DIGEST --token-file DIR/claim-token',
    ],
  },
  key_missing: {
    text: 'it is sealed: no automatic way opens its data key, and its holders have to',
    next: ['holdfast coordinator recover', answerCommand],
  },
  key_mismatch: {
    text: 'a way opened, but to the key of another state: rows of different times are mixed in its store',
    next: restore,
  },
  header_invalid: {
    text: 'its header was altered, or belongs to another identity',
    next: restore,
  },
  rollback_suspected: {
    text: 'nodes or its host have seen a newer state: an old disk or backup was put back. A newer backup is better; without one its holders must accept what is here',
    next: [restore[1] ?? '', 'holdfast coordinator accept-rollback'],
  },
  storage_missing: {
    text: 'its store is empty, but its directory belongs to a cluster: it is not taken for new. Put the store back, or restore a backup into an empty directory',
    next: restore,
  },
  storage_unreachable: {
    text: 'its database does not answer; it tries again by itself',
    next: ['pg_isready -h HOST', 'holdfast coordinator status'],
  },
}

function judgeState({ status, url, here }: CoordinatorSeen): Judged | undefined {
  if (status === undefined) return undefined
  if (!status.ok) {
    return failed(
      `${url} answers, but not as a coordinator does (${status.code}): ${status.message}`,
      'holdfast coordinator status',
    )
  }
  const { state, reason, instance } = status.value
  if (reason === 'open' || reason === 'manifest_needed') {
    return ok(`${state} (${reason}), instance ${instance}`)
  }
  const { text, next } = reasons[reason]
  const commands = next.map((command) => byHolder(command, here))
  return failed(`${state} (${reason}): ${text}${peopleNeeded(status.value)}`, ...commands)
}

/** Whom an open ceremony still waits for, or how many holders it takes. */
function peopleNeeded({ ceremony, holders, state }: CoordinatorStatus): string {
  if (ceremony !== undefined) {
    const answered = ceremony.answered.join(', ') || 'nobody'
    return `; ${ceremony.kind} is under way: ${answered} answered, ${ceremony.missing} missing`
  }
  if (state !== 'recovery' || holders === undefined) return ''
  const who = holders.list.map(({ name }) => name).join(', ')
  return `; ${holders.threshold} of ${holders.list.length} holders are needed: ${who}`
}

function judgeManifest({ status, here }: CoordinatorSeen): Judged | undefined {
  if (status?.ok !== true) return undefined
  const { reason, ceremony } = status.value
  if (reason !== 'manifest_needed') return ok('a manifest is in force')
  if (ceremony?.kind === 'manifest' || ceremony?.kind === 'holders') {
    return failed(
      `the manifest waits for its holders: ${ceremony.answered.join(', ') || 'nobody'} answered, ${ceremony.missing} missing`,
      byHolder(answerCommand, here),
    )
  }
  return failed(
    'it has no manifest yet: nobody can enrol a node',
    'holdfast manifest verify FILE',
    'holdfast manifest set FILE',
  )
}

const login = 'holdfast coordinator login'

function judgeUser({ login: tried }: CoordinatorSeen): Judged | undefined {
  if (tried === undefined) return undefined
  if (tried.ok) return ok('logged in')
  switch (tried.code) {
    case 'user.not_signed_in':
      return failed('nobody is logged in here, or the token has expired', login)
    case 'user.forbidden':
      return failed(
        'the token of this machine has no role for this: its owner grants roles in the manifest',
        'holdfast manifest get',
        login,
      )
    case 'user.locked':
    case 'user.too_many_requests':
      return failed(`it turns this user away for a while: ${tried.message}`, login)
    default:
      return failed(`it refuses this user (${tried.code}): ${tried.message}`, login)
  }
}

function judgeHolders({ status, here }: CoordinatorSeen): Judged | undefined {
  if (status?.ok !== true || status.value.holders === undefined) return undefined
  const { threshold, list, provenWithin90Days: proven } = status.value.holders
  const text = `${threshold} of ${list.length} holders needed, ${proven} proven in 90 days`
  const prove = byHolder('holdfast holder prove NAME --key NAME.key', here)
  if (proven >= list.length) return ok(text)
  if (proven < threshold) {
    return warning(
      `${text}: if the keys were lost today, nobody knows that it would come back`,
      prove,
    )
  }
  const unproven = list.filter(({ provenAt }) => provenAt === undefined).map(({ name }) => name)
  return unproven.length === 0 ? ok(text) : warning(`${text}; never: ${unproven.join(', ')}`, prove)
}

function judgeAlarms({ status }: CoordinatorSeen): Judged | undefined {
  if (status?.ok !== true) return undefined
  const { alarms } = status.value
  if (alarms.length === 0) return ok('none')
  return warning(alarms.join('; '), 'holdfast coordinator status', 'holdfast audit list')
}
