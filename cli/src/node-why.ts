import type { LockedState } from '@holdfast/protocol'
import type { NodeReport } from '@holdfast/protocol/frames'
import { type FleetHere, isOff, startNode, startServer } from './fleet-here.ts'
import type { Node } from './node-place.ts'
import { guardedOf, lines } from './node-text.ts'
import type { Paint } from './output.ts'

// Why a locked node is locked and what opens it: from what the coordinator knows, what the node reports,
// and, where its peer port can be reached, how its own attempt to open goes. Pure.

export interface LockedSeen {
  node: Node
  /** The whole fleet: guardians are nodes. */
  nodes: readonly Node[]
  report: NodeReport
  /** What its peer port says; undefined when this machine cannot reach it. */
  state?: LockedState
  /** The local fleet that it belongs to, if any. */
  here?: FleetHere
}

export interface LockedWhy {
  /**
   * `frozen`: guardians release nothing to it; `held`: it waits for an operator; `awaiting_genesis`: only
   * holders open it so far; `guardians`, `pins`: too few of them answer; `opening`: nothing that is known
   * hinders it, it has just begun or its guardians hold their shares back.
   */
  reason: 'frozen' | 'held' | 'awaiting_genesis' | 'guardians' | 'pins' | 'opening'
  text: string
  /** Of the attempt under way; of the sessions when only those are known. Undefined without guardians. */
  guardians?: {
    answered: number
    of: number
    threshold: number
    attempts?: number
    missing: readonly { name: string; reason: string }[]
  }
  /** Other ways that failed in the attempt, as key servers. */
  failed: readonly { pin: string; label: string; reason: string }[]
  frozen: boolean
  awaitingGenesis: boolean
  wrongKeys?: number
  lastErrors: readonly string[]
  /** Commands, the first one first. */
  next: readonly string[]
}

/** @returns undefined when the node is not locked */
export function whyLocked(seen: LockedSeen): LockedWhy | undefined {
  const { node, report, state } = seen
  if (report.phase !== 'locked') return undefined
  const temporary = report.ways.some(({ label }) => label === 'temporary')
  const guardians = guardiansOf(seen)
  const facts = {
    ...(guardians === undefined ? {} : { guardians }),
    failed: state?.progress?.failed ?? [],
    frozen: node.frozen,
    awaitingGenesis: guardians === undefined && temporary,
    ...(state === undefined ? {} : { wrongKeys: state.wrongKeys }),
    lastErrors: report.lastErrors,
  }
  return { ...facts, ...verdictOf(seen, facts) }
}

type Facts = Omit<LockedWhy, 'reason' | 'text' | 'next'>

function verdictOf(
  seen: LockedSeen,
  { guardians, failed, frozen, awaitingGenesis }: Facts,
): Pick<LockedWhy, 'reason' | 'text' | 'next'> {
  const { node, report, here } = seen
  const { name } = node
  const unlock = `holdfast node unlock ${name} --key FILE --key FILE`
  const doctor = `holdfast doctor node ${name}`
  if (report.held !== undefined) {
    const text = `it is held: ${report.held}; only its holders open it`
    return { reason: 'held', text, next: [unlock] }
  }
  if (frozen) {
    const text = 'it is frozen: no guardian releases a share to it'
    const next = [`holdfast node unfreeze ${name}   # only if it is where it should be`]
    return { reason: 'frozen', text, next }
  }
  if (awaitingGenesis) {
    const text = 'no guardian guards it yet: after a power cut its holders open it'
    const next = [`holdfast node unlock ${name} --genesis --key FILE --key FILE`]
    return { reason: 'awaiting_genesis', text, next }
  }
  const lacking = guardians === undefined ? 0 : guardians.threshold - guardians.answered
  if (guardians !== undefined && lacking > 0) {
    const text = `${lacking} more of its guardians must answer: ${guardians.missing.map((each) => each.name).join(', ')}`
    const start = guardians.missing.flatMap((each) =>
      here !== undefined && isOff(here, each.name) ? [startNode(here, each.name)] : [],
    )
    return { reason: 'guardians', text, next: [...start, doctor, unlock] }
  }
  if (failed.length > 0) {
    const text = `enough guardians answer, but not enough of its other ways: ${failed.map(({ label }) => label).join(', ')}`
    return { reason: 'pins', text, next: [...serversToStart(here), doctor, unlock] }
  }
  const text =
    'enough guardians are there: it is just opening, or they hold their shares back for a while'
  return { reason: 'opening', text, next: [doctor, `holdfast node logs ${name}`] }
}

function serversToStart(here: FleetHere | undefined): string[] {
  const servers = here?.processes?.servers ?? []
  return servers.flatMap(({ name, running }) =>
    here === undefined || running ? [] : [startServer(here, name)],
  )
}

/** The attempt's own word, or else the coordinator's, which knows the sessions and not the answers. */
function guardiansOf({ node, nodes, state }: LockedSeen): LockedWhy['guardians'] {
  if (state?.progress !== undefined) {
    const { answered, missing, threshold, attempts } = state.progress
    const nameOf = (id: string) => nodes.find((each) => each.node === id)?.name ?? id.slice(0, 12)
    return {
      answered: answered.length,
      of: answered.length + missing.length,
      threshold,
      attempts,
      missing: missing.map(({ guardian, reason }) => ({ name: nameOf(guardian), reason })),
    }
  }
  const guarded = guardedOf(node, nodes)
  if (guarded === undefined) return undefined
  const missing = guarded.missing.map((name) => ({ name, reason: 'it has no session' }))
  return { answered: guarded.up, of: guarded.of, threshold: guarded.threshold, missing }
}

/** For a terminal; stands above what the node reports. */
export function whyText(why: LockedWhy, paint: Paint): string {
  const { guardians, failed, wrongKeys = 0, next } = why
  const [first, ...others] = next
  return lines([
    ['why', paint('bad', why.text)],
    ['guardians', guardians === undefined ? undefined : guardianLine(guardians)],
    ...(guardians?.missing ?? []).map(
      ({ name, reason }) => ['', `${name}: ${shortened(reason)}`] as const,
    ),
    ...failed.map(({ pin, label, reason }) => [pin, `${label}: ${shortened(reason)}`] as const),
    ['wrong keys', wrongKeys === 0 ? undefined : String(wrongKeys)],
    ['next', first],
    ...others.map((command) => ['', command] as const),
  ])
}

function guardianLine({ answered, of, threshold, attempts }: NonNullable<LockedWhy['guardians']>) {
  const tried = attempts === undefined ? '' : `, attempt ${attempts}`
  return `${answered} of ${of} ${attempts === undefined ? 'have a session' : 'answered'}, ${threshold} needed${tried}`
}

/** A cause within a cause says the same address over and over; the beginning is enough here. */
function shortened(text: string): string {
  return text.length > 160 ? `${text.slice(0, 157)}...` : text
}
