import type { CommandData, LockedState } from '@holdfast/protocol'
import type { NodeReport } from '@holdfast/protocol/frames'
import {
  type Attempt,
  failed,
  type Judged,
  names,
  notLookedAt,
  ok,
  type Rule,
  warning,
} from './doctor-findings.ts'
import { consoleDoctor, type FleetHere, isOff, startNode } from './fleet-here.ts'
import { age } from './format.ts'
import { placeOf } from './node-locked.ts'
import type { Node } from './node-place.ts'
import {
  counted,
  type Guarded,
  guardedOf,
  guardianPicture,
  reshareText,
  signed,
} from './node-text.ts'
import { whyLocked } from './node-why.ts'

// The layers of a node as its coordinator sees it: session, phase, ways in, guardians, margin, services.
// Pure. The troubleshooting that people know from other systems is in here: a node that stays in
// enrolment, one whose guardians are not enough, one that came back older, services that do not start.

export interface NodeSeen {
  node: Node
  /** The whole fleet: guardians are nodes. */
  nodes: readonly Node[]
  /** From the manifest; undefined when it could not be read. */
  genesisPeers?: number
  /** What the node itself says now. */
  report?: Attempt<NodeReport>
  /** What its peer port says while it is locked; undefined when this machine cannot reach it. */
  locked?: LockedState
  /** What a rehearsal now has shown. */
  rehearsal?: Attempt<CommandData<'rehearse'>>
  /** The local fleet that it belongs to, if any. */
  here?: FleetHere
  now: number
}

export const nodeRules: readonly Rule<NodeSeen>[] = [
  { layer: 'session', judge: judgeSession },
  { layer: 'phase', judge: judgePhase },
  { layer: 'freeze', judge: judgeFreeze },
  { layer: 'ways in', judge: judgeWays },
  { layer: 'guardians', judge: judgeGuardians },
  { layer: 'margin', judge: judgeMargin },
  { layer: 'vault', judge: judgeVault },
  { layer: 're-share', judge: judgeReshare },
  { layer: 'services', judge: judgeServices },
  { layer: 'health', judge: judgeHealth },
  { layer: 'incidents', judge: judgeIncidents },
  {
    layer: 'release',
    judge: ({ node }) =>
      notLookedAt(
        `releases are not managed by this version; if the machine came back with an older system, its log says why: holdfast node logs ${node.name}`,
      ),
  },
]

function reportOf({ report, node }: NodeSeen): NodeReport | undefined {
  return report?.ok === true ? report.value : node.report
}

function judgeSession({ node, now, report, here }: NodeSeen): Judged {
  const { name, connected, heardAt, address, node: id, phase } = node
  if (phase === 'left' || phase === 'wiped') return ok(`${name} has ended its life here`)
  const direct = `holdfast doctor node --at ${placeOf(address, node.peerPort)} --pin ${id}`
  if (here !== undefined && isOff(here, name)) {
    return failed(`${name} has no power: its agent does not run`, startNode(here, name))
  }
  if (!connected) {
    const heard = heardAt === undefined ? 'never heard' : `last heard ${age(heardAt, now)} ago`
    return failed(
      `${name} has no session with the coordinator, ${heard}: it is off, its agent does not run, or its way out is blocked`,
      direct,
      consoleDoctor(here, name),
    )
  }
  if (report?.ok === false) {
    return failed(`it is connected and does not answer (${report.code}): ${report.message}`, direct)
  }
  return ok(report === undefined ? 'connected' : 'connected, and answers')
}

function judgePhase(seen: NodeSeen): Judged {
  const { node } = seen
  const report = reportOf(seen)
  const phase = report?.phase ?? node.phase
  const list = 'holdfast node list'
  switch (phase) {
    case 'open':
      return ok('open')
    case 'locked':
      return warning('locked: why, is said by the layers that follow')
    case 'factory':
      return failed(
        'it is enrolled with nobody: its code stands on its console',
        'holdfast node enrol HOST --name NAME',
      )
    case 'enrolling':
      return failed(
        `its enrolment has not ended${lastOf(report)}: it has accepted, and waits for guardians or for its own disk. Without --genesis it needs other nodes first`,
        list,
        consoleDoctor(seen.here, node.name),
      )
    case 'rescue':
      return failed(
        `it is in rescue and does not go on by itself${lastOf(report)}`,
        `holdfast node logs ${node.name}`,
      )
    case 'left':
    case 'wiped':
      return failed(
        phase === 'left' ? 'it has left the fleet' : 'its keys were destroyed',
        `holdfast node remove ${node.name} --confirm ${node.name}`,
      )
    default:
      return phase satisfies never
  }
}

function lastOf(report: NodeReport | undefined): string {
  const [last] = report?.lastErrors ?? []
  return last === undefined ? '' : ` (${last})`
}

function isLocked(seen: NodeSeen): boolean {
  return (reportOf(seen)?.phase ?? seen.node.phase) === 'locked'
}

function judgeFreeze(seen: NodeSeen): Judged {
  const { frozen, name } = seen.node
  if (!frozen) return ok('not frozen')
  const text = 'it is frozen: no guardian releases a share to it'
  const next = `holdfast node unfreeze ${name}   # only if it is where it should be`
  return isLocked(seen) ? failed(`${text}, so it stays locked`, next) : warning(text, next)
}

function judgeWays(seen: NodeSeen): Judged | undefined {
  const { node, rehearsal } = seen
  const report = reportOf(seen)
  if (report === undefined) return undefined
  const rehearse = `holdfast node rehearse ${node.name}`
  const automatic = report.ways.filter(({ purpose }) => purpose === 'automatic')
  if (automatic.length === 0) {
    return failed(
      'its vault has no way in that opens by itself, or its header cannot be read',
      `holdfast node unlock ${node.name} --key FILE --key FILE`,
    )
  }
  if (rehearsal?.ok === false) {
    return warning(`it could not rehearse (${rehearsal.code}): ${rehearsal.message}`, rehearse)
  }
  const broken = (rehearsal?.ok === true ? rehearsal.value.ways : report.ways).filter(
    ({ state }) => state === 'failed',
  )
  const slots = broken.map(({ keyslot }) => String(keyslot))
  // A locked node's own way has failed, of course: why, is said by the layers of its guardians.
  if (slots.length > 0 && !isLocked(seen)) {
    const text = `the way in keyslot ${slots.join(', ')} failed its last proof`
    if (!hasTooFew(seen)) return failed(text, rehearse)
    return warning(`${text}: why, is said by the layer of its guardians`)
  }
  const foreign = report.ways.filter(({ purpose }) => purpose === 'foreign')
  if (foreign.length > 0) {
    const where = foreign.map(({ keyslot }) => keyslot).join(', ')
    return warning(`keyslot ${where} was not made by Holdfast: who has its key?`)
  }
  const recovery = report.ways.filter(({ purpose }) => purpose === 'recovery')
  if (recovery.length === 0) return warning('there is no way back through the holders')
  return ok(`${automatic.length} automatic, ${recovery.length} through the holders`)
}

/** So few of its guardians are there that it could not open now. */
function hasTooFew({ node, nodes }: NodeSeen): boolean {
  return (guardedOf(node, nodes)?.margin ?? 0) < 0
}

function judgeGuardians(seen: NodeSeen): Judged {
  const { node, nodes, genesisPeers } = seen
  const guarded = guardedOf(node, nodes)
  if (guarded === undefined) return judgeUnguarded(seen, nodes.length, genesisPeers)
  const liars = unhealthy(seen)
  const able = guarded.up - liars.filter((name) => !guarded.missing.includes(name)).length
  const picture = guardianPicture(guarded)
  if (able < guarded.threshold) {
    const bad = [...new Set([...guarded.missing, ...liars])]
    const text = `${picture}: ${guarded.threshold - able} too few; not there or unhealthy: ${names(bad)}`
    const next = lookInto(bad, seen.here)
    const open = `holdfast node unlock ${node.name} --key FILE --key FILE   # its holders can open it meanwhile`
    return isLocked(seen)
      ? failed(`not enough guardians: ${text}`, ...next, open)
      : failed(`${text}. It is open now and would not come back`, ...next)
  }
  if (liars.length > 0) {
    return warning(
      `${picture}; no proof of their share from ${names(liars)}`,
      `holdfast node rehearse ${node.name}`,
    )
  }
  return ok(picture)
}

/** Guardians that could not prove that they still have this node's share. */
function unhealthy({ rehearsal, nodes }: NodeSeen): string[] {
  if (rehearsal?.ok !== true || !Array.isArray(rehearsal.value.guardians)) return []
  return rehearsal.value.guardians
    .filter((each: { healthy?: unknown }) => each.healthy !== true)
    .map(({ guardian }: { guardian?: unknown }) => {
      const found = nodes.find(({ node }) => node === guardian)
      return found?.name ?? String(guardian).slice(0, 12)
    })
}

function judgeUnguarded(seen: NodeSeen, count: number, peers: number | undefined): Judged {
  const { name } = seen.node
  const unlock = `holdfast node unlock ${name} --genesis --key FILE --key FILE`
  const until = peers === undefined ? '' : ` (${peers} nodes are needed, there are ${count})`
  if (isLocked(seen)) {
    return failed(
      `it has no guardians yet${until}: after a power cut its holders open it`,
      unlock,
      'holdfast node enrol HOST --name NAME   # until enough peers have joined',
    )
  }
  const temporary = reportOf(seen)?.ways.some(({ label }) => label === 'temporary') === true
  if (!temporary) return ok('none: the pins of the manifest open it')
  return warning(
    `none yet${until}: after a power cut its holders must open it`,
    'holdfast node enrol HOST --name NAME',
  )
}

/** The next command for each of some nodes: to look at it, or to give it its power back. */
export function lookInto(names: readonly string[], here?: FleetHere): string[] {
  return names
    .slice(0, 3)
    .map((name) =>
      here !== undefined && isOff(here, name)
        ? startNode(here, name)
        : `holdfast doctor node ${name}`,
    )
}

function judgeMargin({ node, nodes, here }: NodeSeen): Judged {
  const guarded: Guarded | undefined = guardedOf(node, nodes)
  if (guarded === undefined) return ok('no guardians, no margin')
  const text = `${signed(guarded.margin)} beyond the threshold of ${guarded.threshold}`
  if (guarded.margin > 0) return ok(text)
  const then =
    guarded.margin === 0
      ? 'the next guardian that goes away strands it'
      : 'it cannot open before one comes back'
  return warning(
    `${text}: ${then}; away now: ${names(guarded.missing)}`,
    ...lookInto(guarded.missing, here),
  )
}

/** Everything it needs is there; is it open? */
function judgeVault(seen: NodeSeen): Judged | undefined {
  const report = reportOf(seen)
  if (report === undefined) return undefined
  const { name } = seen.node
  if (report.phase !== 'locked') {
    return ok(report.mapped ? 'mapped' : 'proven; this kernel has no device-mapper to map it')
  }
  if (report.held !== undefined) {
    return failed(
      `it is locked and held: ${report.held}. Nothing but a pushed key opens it`,
      `holdfast node unlock ${name} --key FILE --key FILE`,
    )
  }
  const { node, nodes, locked: state, here } = seen
  const why = whyLocked({
    ...{ node, nodes, report },
    ...(state === undefined ? {} : { state }),
    ...(here === undefined ? {} : { here }),
  })
  const missing = why?.reason === 'guardians' ? (why.guardians?.missing ?? []) : []
  const causes = [
    ...missing.map((each) => `${each.name}: ${each.reason}`),
    ...(why?.failed.map(({ label, reason }) => `${label}: ${reason}`) ?? []),
  ]
  const text = causes.length === 0 ? why?.text : `${why?.text} (${names(causes, 2, '; ')})`
  const self = `holdfast doctor node ${name}`
  const next = [
    ...(why?.next.filter((command) => command !== self) ?? []),
    `holdfast node logs ${name}`,
  ]
  return failed(`it is locked${lastOf(report)}: ${text}`, ...next)
}

function judgeReshare({ node, now }: NodeSeen): Judged {
  const text = reshareText(node, now)
  if (text === undefined) return ok('its guardians are as they should be')
  if (node.reshare?.state !== 'failed') return ok(text)
  return warning(`${text}; the old guardians still guard it`, `holdfast node show ${node.name}`)
}

function judgeServices(seen: NodeSeen): Judged | undefined {
  const report = reportOf(seen)
  if (report === undefined) return undefined
  const { name } = seen.node
  const all = Object.entries(report.services)
  if (all.length === 0) return ok('it has none')
  const inState = (wanted: string) =>
    all.filter(([, state]) => state === wanted).map(([service]) => service)
  const [down, refused] = [[...inState('failed'), ...inState('stopped')], inState('refused')]
  const [first] = down
  if (first !== undefined) {
    return failed(
      `not running: ${names(down)}`,
      `holdfast node restart ${name} ${first}`,
      `holdfast node logs ${name} ${first}`,
    )
  }
  if (refused.length > 0) {
    return warning(
      `the node refuses to start ${names(refused)}: a service never runs without a mounted vault, nor without systemd`,
      `holdfast node services ${name}`,
    )
  }
  return ok(`${all.length} running`)
}

function judgeHealth(seen: NodeSeen): Judged | undefined {
  const report = reportOf(seen)
  if (report?.health === undefined) return undefined
  const all = Object.entries(report.health)
  const bad = all.filter(([, state]) => state === 'failing' || state === 'refused')
  const logs = `holdfast node logs ${seen.node.name}`
  if (bad.length > 0) return failed(`failing: ${names(bad.map(([check]) => check))}`, logs)
  const waiting = all.filter(([, state]) => state === 'waiting').map(([check]) => check)
  if (waiting.length > 0) return warning(`not decided yet: ${names(waiting)}`, logs)
  return ok(all.length === 0 ? 'the manifest asks for no checks' : `${all.length} checks pass`)
}

function judgeIncidents(seen: NodeSeen): Judged | undefined {
  const report = reportOf(seen)
  if (report === undefined) return undefined
  const { incidents } = report
  if (incidents.length === 0) return ok('none')
  const nameAll = (text: string) =>
    seen.nodes.reduce((told, { node, name }) => told.replaceAll(node, name), text)
  return warning(
    names(counted(incidents.map(nameAll)), 3, '; '),
    `holdfast node logs ${seen.node.name}`,
    'holdfast audit list',
  )
}
