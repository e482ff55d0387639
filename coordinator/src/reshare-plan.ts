import {
  answers,
  type GuardianRules,
  hasRoom,
  isMember,
  leastGuardians,
  liveGuardians,
  loadOf,
  mayGuard,
  type NodeView,
  type NodeViews,
} from './placement.ts'

// When a ward moves to other guardians, and how far it has come. Pure: rows and node views in, what is
// to be done out. Time comes in as milliseconds. One re-share is one epoch:
//   planned -> preparing -> ordered -> retiring -> done | failed
// planned     it is due; guardians are chosen when its turn comes
// preparing   the guardians make their keys
// ordered     the ward has been told; from here on the order never changes
// retiring    the ward's report has proven the new set; the guardians destroy what is older
// Rules:
// - a key is retired only when the ward has reported a later epoch that was ordered here: retiring
//   destroys everything up to an epoch, so an attempt that failed keeps its keys until it is overtaken;
// - an order that was given up may still be carried out: whoever reports it is believed;
// - every decision is made from what is stored, so it may be made twice, late, and by any instance.

export const reshareStates = [
  'planned',
  'preparing',
  'ordered',
  'retiring',
  'done',
  'failed',
] as const
export type ReshareState = (typeof reshareStates)[number]

/** Why a ward moves, the most urgent first. */
export const causes = ['first', 'genesis', 'loss', 'leave', 'rules', 'join', 'schedule'] as const
export type Cause = (typeof causes)[number]

/** The manifest's guardian rules with the times that go with them, in milliseconds. */
export interface ReshareRules extends GuardianRules {
  /** Other members that end the holders' temporary way. */
  genesisPeers: number
  /** A set of guardians is made anew after so long. */
  refresh: number
  /** A guardian that was silent for so long is lost. */
  lost: number
}

const second = 1_000
const minute = 60 * second

/** How long guardians may take for their keys. */
const preparePatience = 2 * minute
/** How long a ward that is open and connected may take. */
export const orderPatience = 10 * minute
/** How long guardians that do not answer are waited for when their old keys are to go. */
const retirePatience = 2 * minute
/** After so long a re-share does not hold others up any more. */
const slotPatience = minute
const firstRetry = 15 * second
const lastRetry = 60 * minute

/** What earlier re-shares of a ward say. */
export interface History {
  /** One is under way; one that is only planned is not. */
  active: boolean
  /** When the set in use was proven; undefined when that is not known. */
  doneAt?: number | undefined
  /** Attempts that failed since. */
  failures: number
  failedAt: number
}

export interface Survey {
  now: number
  /** Since when nodes could have been heard at all. */
  since: number
  views: NodeViews
  rules: ReshareRules
  history: (ward: string) => History
}

export interface Need {
  ward: string
  cause: Cause
  /** Living guardians beyond the threshold: whoever has fewest comes first. */
  slack: number
}

/** What is the same for every ward of one look. */
interface Look extends Survey {
  members: number
  /** Everybody who could be given a share now. */
  able: ReadonlySet<string>
  /** How many of them have room for another ward, by failure domain. */
  domains: ReadonlyMap<string, number>
}

/** Every ward that has to move, the most urgent first. */
export function needs(survey: Survey): Need[] {
  const views = [...survey.views.values()]
  const members = views.filter(isMember).length
  const able = new Set(views.filter((view) => mayGuard(view) && answers(view)).map(idOf))
  const load = loadOf(views)
  const roomy = [...able].filter((id) => hasRoom(id, load))
  const look: Look = { ...survey, members, able, domains: domainsOf(roomy, survey.views) }
  const found: Need[] = []
  for (const ward of views) {
    const cause = needOf(ward, look)
    if (cause === undefined) continue
    const slack = liveGuardians(ward, survey.views).length - ward.threshold
    found.push({ ward: ward.node, cause, slack })
  }
  return found.sort(
    (a, b) =>
      a.slack - b.slack ||
      causes.indexOf(a.cause) - causes.indexOf(b.cause) ||
      (a.ward < b.ward ? -1 : 1),
  )
}

function idOf({ node }: NodeView): string {
  return node
}

function needOf(ward: NodeView, look: Look): Cause | undefined {
  const { now, history } = look
  // Nobody releases to a frozen node, and who is not open cannot change its keyslots.
  if (ward.frozen || ward.leaving || !ward.connected) return undefined
  if (ward.phase !== 'open' && !ward.waiting) return undefined
  const { active, failures, failedAt } = history(ward.node)
  if (active || now < failedAt + retryAfter(failures)) return undefined
  return causeOf(ward, look)
}

/** Milliseconds until a ward is tried again. */
export function retryAfter(failures: number): number {
  return failures === 0 ? 0 : Math.min(lastRetry, firstRetry * 2 ** (failures - 1))
}

function causeOf(ward: NodeView, look: Look): Cause | undefined {
  const { views, rules, members } = look
  const { guardians } = ward
  if (guardians.length === 0) {
    if (!ward.genesis || ward.waiting) return 'first'
    return members - 1 >= rules.genesisPeers ? 'genesis' : undefined
  }
  const lost = guardians.filter((id) => isLost(views.get(id), look))
  if (lost.length > 0 && improves(ward, lost, look)) return 'loss'
  const enough = othersFor(ward, look) >= leastGuardians(rules)
  if (ward.sharedWithLeaver) return enough ? 'leave' : undefined
  // The rest is not urgent: it waits until all of its guardians are there.
  if (!guardians.every((id) => lost.includes(id) || answers(views.get(id)))) return undefined
  return enough ? quietCauseOf(ward, lost, look) : undefined
}

function quietCauseOf(ward: NodeView, lost: readonly string[], look: Look): Cause | undefined {
  const { rules, now, history } = look
  const { length } = ward.guardians
  if (ward.threshold !== rules.threshold || length > rules.count) return 'rules'
  if (length < rules.count && othersFor(ward, look) > length) return 'join'
  if (isCrowded(ward, look)) return 'join'
  const { doneAt = 0 } = history(ward.node)
  return lost.length === 0 && now - doneAt >= rules.refresh ? 'schedule' : undefined
}

/** Gone for good, not to be trusted any more, or silent for too long. */
function isLost(
  view: NodeView | undefined,
  { now, since, rules }: Pick<Survey, 'now' | 'since' | 'rules'>,
): boolean {
  if (view === undefined || !isMember(view) || view.frozen) return true
  return !view.connected && now - Math.max(view.heardAt, since) >= rules.lost
}

/** True when a new set would be no worse, and without those that are lost. */
function improves(ward: NodeView, lost: readonly string[], look: Look): boolean {
  const { views, rules } = look
  const others = Math.min(rules.count, othersFor(ward, look))
  if (others < leastGuardians(rules)) return false
  if (lost.some((id) => views.get(id)?.frozen === true)) return true
  // As many as now will do: then nobody is bound to a lost one, and its record can go.
  return others >= liveGuardians(ward, views).length
}

/** True when its guardians could be spread over more failure domains. */
function isCrowded(ward: NodeView, { views, domains, able, rules }: Look): boolean {
  const own = ward.domain ?? ''
  const alone = able.has(ward.node) && domains.get(own) === 1
  // Where everybody is full, who guards it already stays.
  const staying = domainsOf(
    ward.guardians.filter((id) => able.has(id)),
    views,
  )
  const kept = [...staying.keys()].filter((domain) => !domains.has(domain)).length
  const possible = Math.min(rules.count, domains.size + kept - (alone ? 1 : 0))
  return domainsOf(ward.guardians, views).size < possible
}

/** How many of these nodes are in each failure domain. */
function domainsOf(nodes: readonly string[], views: NodeViews): Map<string, number> {
  const domains = new Map<string, number>()
  for (const id of nodes) {
    const domain = views.get(id)?.domain ?? ''
    domains.set(domain, (domains.get(domain) ?? 0) + 1)
  }
  return domains
}

/** How many could be given a share of this ward now. */
function othersFor({ node }: NodeView, { able }: Look): number {
  return able.has(node) ? able.size - 1 : able.size
}

/** A re-share as it is stored. */
export interface Reshare {
  id: string
  ward: string
  cause: Cause
  state: ReshareState
  epoch: number
  threshold: number
  guardians: readonly string[]
  since: number
  /** The ward's refusal, while it is ordered; otherwise why it waits or has failed. */
  code?: string | undefined
  message?: string | undefined
}

/** `asked` and `made` belong to the set to be; `retiring` is being destroyed. */
export type WardKeyState = 'asked' | 'made' | 'refused' | 'retiring'

export interface HeldKey {
  guardian: string
  epoch: number
  state: WardKeyState
  code?: string | undefined
}

export interface Facts {
  now: number
  ward: NodeView | undefined
  views: NodeViews
  /** This ward's keys, of every epoch. */
  keys: readonly HeldKey[]
  rules: ReshareRules
  /** It is this one's turn. */
  free: boolean
  /** It is still due. */
  due: boolean
  /** A higher epoch than every one that was ever used for this ward. */
  nextEpoch: number
  choose: () => readonly string[]
}

export type Decision =
  | { to: 'preparing'; epoch: number; threshold: number; guardians: readonly string[] }
  /** It still waits; says what for. */
  | { to: 'planned'; message: string }
  | { to: 'ordered' }
  | { to: 'retiring' }
  | { to: 'done' }
  | { to: 'failed'; code: ReshareFault; message: string; blamed: readonly string[] }
  /** It never began and is not due any more. */
  | { to: 'dropped' }

export type ReshareFault =
  | 'reshare.ward_gone'
  | 'reshare.guardian_gone'
  | 'reshare.guardian_refused'
  | 'reshare.guardian_silent'
  | 'reshare.ward_refused'
  | 'reshare.ward_slow'
  | 'reshare.overtaken'

/** What is to be done with a re-share now; undefined when it has to wait. */
export function decide(reshare: Reshare, facts: Facts): Decision | undefined {
  switch (reshare.state) {
    case 'planned':
      return decidePlanned(reshare, facts)
    case 'preparing':
      return decidePreparing(reshare, facts)
    case 'ordered':
      return decideOrdered(reshare, facts)
    case 'retiring':
      return decideRetiring(reshare, facts)
    case 'failed':
      // Given up, and carried out all the same: then it counts.
      return reshare.epoch > 0 && hasProven(reshare, facts.ward) ? { to: 'retiring' } : undefined
    case 'done':
      return undefined
    default:
      return reshare.state satisfies never
  }
}

function decidePlanned(reshare: Reshare, facts: Facts): Decision | undefined {
  const { ward, views, rules, free, due, nextEpoch, choose } = facts
  if (ward === undefined || !due) return { to: 'dropped' }
  if (!free) return undefined
  const guardians = choose()
  const least = leastGuardians(rules)
  if (guardians.length < least)
    return waiting(reshare, `${guardians.length} nodes could guard it now, and ${least} are needed`)
  // Whoever joins for nothing would join again and again.
  // A guardian that was lost since it was planned counts for nothing.
  const living = liveGuardians(ward, views)
  const wider = domainsOf(guardians, views).size > domainsOf(living, views).size
  if (reshare.cause === 'join' && !wider && guardians.length <= living.length)
    return waiting(reshare, 'those who could guard it better are full or have failed lately')
  return { to: 'preparing', epoch: nextEpoch, threshold: rules.threshold, guardians }
}

function waiting({ message: before }: Reshare, message: string): Decision | undefined {
  return before === message ? undefined : { to: 'planned', message }
}

function decidePreparing(reshare: Reshare, facts: Facts): Decision | undefined {
  const { now, ward, views, keys } = facts
  if (isGone(ward)) return wardGone
  const own = keys.filter(({ epoch }) => epoch === reshare.epoch)
  const refused = own.filter(({ state }) => state === 'refused')
  if (refused.length > 0) {
    const why = refused.map(({ guardian, code }) => `${guardian}: ${code ?? 'no reason'}`)
    const blamed = refused.map(({ guardian }) => guardian)
    return failed('reshare.guardian_refused', `no key was made: ${why.join(', ')}`, blamed)
  }
  const gone = reshare.guardians.filter((id) => !mayGuard(views.get(id)))
  if (gone.length > 0) return guardianGone(gone)
  const made = own.filter(({ state }) => state === 'made').map(({ guardian }) => guardian)
  const missing = reshare.guardians.filter((id) => !made.includes(id))
  if (missing.length === 0) return { to: 'ordered' }
  if (now - reshare.since < preparePatience) return undefined
  const message = `no answer from ${missing.join(', ')}`
  return failed('reshare.guardian_silent', message, missing)
}

function decideOrdered(reshare: Reshare, facts: Facts): Decision | undefined {
  const { now, ward, views } = facts
  if (isGone(ward)) return wardGone
  if (hasProven(reshare, ward)) return { to: 'retiring' }
  if (ward.epoch >= reshare.epoch) {
    const message = `the ward is at epoch ${ward.epoch} with other guardians`
    return failed('reshare.overtaken', message, [])
  }
  if (reshare.code !== undefined) {
    const { code, message = '' } = reshare
    return failed('reshare.ward_refused', `the ward answered ${code}: ${message}`, [])
  }
  // Whoever is away may have carried it out already, and cannot be told anything else either.
  if (!ward.connected || ward.phase !== 'open') return undefined
  const gone = reshare.guardians.filter((id) => !mayGuard(views.get(id)))
  if (gone.length > 0) return guardianGone(gone)
  if (now - reshare.since < orderPatience) return undefined
  const silent = reshare.guardians.filter((id) => !answers(views.get(id)))
  return failed('reshare.ward_slow', 'the ward has not proven the new set in time', silent)
}

function decideRetiring(reshare: Reshare, facts: Facts): Decision | undefined {
  const { now, views, keys } = facts
  const older = keys.filter(({ epoch }) => epoch < reshare.epoch)
  if (older.length === 0) return { to: 'done' }
  // A guardian that is away is told when it is back; that is nothing to wait for.
  const reachable = older.some(({ guardian }) => views.get(guardian)?.connected === true)
  return reachable && now - reshare.since < retirePatience ? undefined : { to: 'done' }
}

/** The ward's own report names this epoch and exactly these guardians. */
function hasProven(reshare: Reshare, ward: NodeView | undefined): boolean {
  if (ward === undefined || ward.epoch !== reshare.epoch) return false
  return [...ward.guardians].sort().join() === [...reshare.guardians].sort().join()
}

function isGone(ward: NodeView | undefined): ward is undefined {
  return ward === undefined || !(isMember(ward) || ward.phase === 'enrolling')
}

const wardGone = failed('reshare.ward_gone', 'the ward has left or was removed', [])

function guardianGone(gone: readonly string[]): Decision {
  return failed('reshare.guardian_gone', `not in the fleet any more: ${gone.join(', ')}`, gone)
}

function failed(code: ReshareFault, message: string, blamed: readonly string[]): Decision {
  return { to: 'failed', code, message, blamed }
}

/** True while a re-share counts against those that may be under way at once. */
export function holdsSlot({ state, since }: Pick<Reshare, 'state' | 'since'>, now: number) {
  return (state === 'preparing' || state === 'ordered') && now - since < slotPatience
}
