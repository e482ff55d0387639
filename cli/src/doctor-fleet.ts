import { failed, type Judged, names, ok, type Rule, warning } from './doctor-findings.ts'
import { lookInto, nodeRules } from './doctor-node.ts'
import { type FleetHere, isOff } from './fleet-here.ts'
import type { Node } from './node-place.ts'
import { guardedOf } from './node-text.ts'

// The layers of a whole fleet. Nodes do not rest on each other, so all of it is looked at; every finding
// names the nodes it is about. Pure.

export interface FleetSeen {
  nodes: readonly Node[]
  genesisPeers?: number
  /** The local fleet, if it is one. */
  here?: FleetHere
  now: number
}

export const fleetRules: readonly Rule<FleetSeen>[] = [
  { layer: 'nodes', judge: judgeCount },
  { layer: 'sessions', independent: true, judge: judgeSessions },
  ...[
    { layer: 'phases', of: 'phase' },
    { layer: 'freezes', of: 'freeze' },
    { layer: 'ways in', of: 'ways in' },
    { layer: 'guardians', of: 'guardians' },
    { layer: 'margins', of: 'margin' },
    { layer: 're-shares', of: 're-share' },
    { layer: 'services', of: 'services' },
    { layer: 'health', of: 'health' },
    { layer: 'incidents', of: 'incidents' },
  ].map(({ layer, of }) => ({
    layer,
    independent: true as const,
    judge: (seen: FleetSeen) => everyNode(seen, of),
  })),
  { layer: 'blackout', independent: true, judge: judgeBlackout },
]

const present = (nodes: readonly Node[]) =>
  nodes.filter(({ phase }) => phase !== 'left' && phase !== 'wiped')

function judgeCount({ nodes }: FleetSeen): Judged {
  const gone = nodes.length - present(nodes).length
  if (nodes.length === 0) {
    return warning('there are no nodes yet', 'holdfast node enrol HOST --name NAME --genesis')
  }
  return ok(`${nodes.length - gone}${gone === 0 ? '' : `, and ${gone} that left or were wiped`}`)
}

function judgeSessions({ nodes, here }: FleetSeen): Judged {
  // The fleet knows at once what a coordinator learns when a session has been silent for a while.
  const away = present(nodes).filter(({ connected, name }) => !connected || isOff(here, name))
  if (away.length === 0) return ok('all have one')
  return failed(`none with ${names(away.map(({ name }) => name))}`, ...doctors(away, here))
}

/** One layer of every node that is there; the worst decides, and nodes of one finding stand together. */
function everyNode(fleet: FleetSeen, layer: string): Judged | undefined {
  const rule = nodeRules.find((each) => each.layer === layer)
  const judged = present(fleet.nodes).flatMap((node) => {
    const found = rule?.judge({ node, ...fleet })
    return found === undefined ? [] : [{ node, ...found }]
  })
  if (judged.length === 0) return undefined
  const bad = judged.filter(({ state }) => state === 'failed')
  const doubtful = judged.filter(({ state }) => state === 'warning')
  const worst = bad.length > 0 ? bad : doubtful
  if (worst.length === 0) return ok('all well')
  const text = names(
    [...new Set(worst.map((one) => one.text))].map((said) => {
      const who = worst.filter((one) => one.text === said).map(({ node }) => node.name)
      return `${names(who)}: ${said}`
    }),
    3,
    '; ',
  )
  const next = doctors(
    worst.map(({ node }) => node),
    fleet.here,
  )
  return bad.length > 0 ? failed(text, ...next) : warning(text, ...next)
}

function doctors(nodes: readonly Node[], here?: FleetHere): string[] {
  return lookInto(
    nodes.map(({ name }) => name),
    here,
  )
}

/** After the power has been cut everywhere: who comes back by itself? Guardians' keys lie outside vaults. */
function judgeBlackout({ nodes, here }: FleetSeen): Judged {
  const { servers = [], serversNeeded = 0 } = here?.processes ?? {}
  if (servers.filter(({ running }) => running).length < serversNeeded)
    return warning('if the power is cut everywhere, no node comes back before more key servers run')
  const all = present(nodes)
  const stranded = all.filter((node) => {
    const guarded = guardedOf(node, nodes)
    const temporary = node.report?.ways.some(({ label }) => label === 'temporary') === true
    return node.frozen || (guarded === undefined ? temporary : guarded.margin < 0)
  })
  if (stranded.length === 0)
    return ok('if the power is cut everywhere, every node comes back by itself')
  return warning(
    `if the power is cut everywhere, people must open ${names(stranded.map(({ name }) => name))}`,
    ...stranded.slice(0, 1).map(({ name }) => `holdfast node unlock ${name} --key FILE --key FILE`),
  )
}
