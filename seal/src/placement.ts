import type { JsonObject } from '@holdfast/base'
import { sealFault } from './faults.ts'
import { type Policy, threshold } from './policy.ts'

// Which key servers a node is bound to: its nearest m of n, any t of which open it. Pure, and the
// same for any order of its inputs. Where it can be had, no region alone holds more than m - t of a
// node's servers, so that the loss of one region leaves t; where it cannot, the node is named.

/** One key server, or one load-balanced set behind one address. */
export interface PlacementServer {
  url: string
  /** Thumbprint of its signing key. */
  thp: string
  /** Whatever fails as one: a region, a site, a rack. */
  region: string
  /** Its advertisement, for nodes that must be enrolled while it cannot be reached. */
  adv?: JsonObject
}

/** A node, with its region or with latencies it measured itself (which count first). */
export interface PlacementNode {
  name: string
  region?: string
  /** Milliseconds by server address; a server that is missing here cannot be reached. */
  latency?: Readonly<Record<string, number>>
}

export interface PlacementRequest {
  /** How many servers each node is bound to (m). */
  servers: number
  /** How many of them open it (t). */
  threshold: number
  /** Never two servers of one region for one node. Default false. */
  oncePerRegion?: boolean
  /**
   * Distance from a node's region to a server's, in any unit. Without a table the own region is
   * near and all others are equally far; with one, a region that is missing cannot be reached.
   */
  distances?: Readonly<Record<string, Readonly<Record<string, number>>>>
}

export interface NodePlacement {
  node: string
  /** Nearest first. */
  servers: readonly PlacementServer[]
  policy: Policy
  /** Regions whose loss alone leaves fewer than t of this node's servers. */
  fatalRegions: readonly string[]
}

export interface Placement {
  /** By node name. */
  nodes: readonly NodePlacement[]
  /** Number of nodes bound to each server, by address. */
  load: Readonly<Record<string, number>>
}

/**
 * Assigns every node its servers. Among servers equally near, the one with the fewest nodes is
 * taken, then the first by address.
 * @throws Fault seal.placement_impossible naming every node that cannot have m servers
 */
export function planPlacement(
  servers: readonly PlacementServer[],
  nodes: readonly PlacementNode[],
  request: PlacementRequest,
): Placement {
  checkRequest(servers, nodes, request)
  const load = new Map(servers.map(({ url }) => [url, 0]))
  const problems: { node: string; reason: string }[] = []
  const placed: NodePlacement[] = []
  for (const node of [...nodes].sort((a, b) => compare(a.name, b.name))) {
    const chosen = chooseServers(servers, node, request, load)
    if (typeof chosen === 'string') {
      problems.push({ node: node.name, reason: chosen })
      continue
    }
    for (const { url } of chosen) load.set(url, (load.get(url) ?? 0) + 1)
    placed.push(describe(node, chosen, request))
  }
  if (problems.length > 0) throw impossible(problems)
  return { nodes: placed, load: Object.fromEntries(load) }
}

/** The servers of one node, nearest first, or the reason why there are not enough. */
function chooseServers(
  servers: readonly PlacementServer[],
  node: PlacementNode,
  request: PlacementRequest,
  load: ReadonlyMap<string, number>,
): PlacementServer[] | string {
  if (node.region === undefined && node.latency === undefined) {
    return 'it has neither a region nor latencies'
  }
  const near = servers
    .map((server) => ({ server, distance: distanceTo(server, node, request) }))
    .filter(({ distance }) => Number.isFinite(distance))
    .sort(
      (a, b) =>
        a.distance - b.distance ||
        (load.get(a.server.url) ?? 0) - (load.get(b.server.url) ?? 0) ||
        compare(a.server.url, b.server.url),
    )
    .map(({ server }) => server)
  const most = request.oncePerRegion === true ? 1 : request.servers
  const safe = Math.min(most, request.servers - request.threshold)
  const chosen = takeWithin(near, request.servers, safe) ?? takeWithin(near, request.servers, most)
  if (chosen !== undefined) return chosen
  const regions = new Set(near.map(({ region }) => region)).size
  const found = `it can reach ${near.length} key servers in ${regions} regions`
  const rule = most === 1 ? ', at most one in each region' : ''
  return `${found} and needs ${request.servers}${rule}`
}

/** The first `count` of the list with at most `most` of any region, or undefined. */
function takeWithin(
  near: readonly PlacementServer[],
  count: number,
  most: number,
): PlacementServer[] | undefined {
  const perRegion = new Map<string, number>()
  const taken: PlacementServer[] = []
  for (const server of near) {
    const already = perRegion.get(server.region) ?? 0
    if (taken.length === count || already >= most) continue
    perRegion.set(server.region, already + 1)
    taken.push(server)
  }
  return taken.length === count ? taken : undefined
}

function distanceTo(
  server: PlacementServer,
  node: PlacementNode,
  { distances }: PlacementRequest,
): number {
  const distance =
    node.latency === undefined
      ? distances === undefined
        ? Number(server.region !== node.region)
        : distances[node.region ?? '']?.[server.region]
      : node.latency[server.url]
  return distance === undefined || distance < 0 ? Number.NaN : distance
}

function describe(
  node: PlacementNode,
  servers: readonly PlacementServer[],
  request: PlacementRequest,
): NodePlacement {
  const children = servers.map(({ url, thp, adv }): Policy => {
    const config = { url, thp, ...(adv === undefined ? {} : { adv }) }
    return { kind: 'pin', pin: 'tang', config }
  })
  const [only] = children
  const policy =
    only !== undefined && children.length === 1 ? only : threshold(request.threshold, children)
  const regions = [...new Set(servers.map(({ region }) => region))].sort(compare)
  const without = (lost: string) => servers.filter(({ region }) => region !== lost).length
  const fatalRegions = regions.filter((region) => without(region) < request.threshold)
  return { node: node.name, servers, policy, fatalRegions }
}

function checkRequest(
  servers: readonly PlacementServer[],
  nodes: readonly PlacementNode[],
  request: PlacementRequest,
): void {
  const { servers: m, threshold: t } = request
  if (!Number.isInteger(m) || !Number.isInteger(t) || t < 1 || t > m) {
    throw refuse(`any ${t} of ${m} key servers cannot be asked for`)
  }
  if (m > servers.length) throw refuse(`${m} of ${servers.length} key servers were asked for`)
  const twice = (values: readonly string[]) =>
    values.find((value, index) => values.indexOf(value) !== index)
  const url = twice(servers.map((server) => server.url))
  if (url !== undefined) throw refuse(`the key server ${url} is listed twice`)
  const thp = twice(servers.map((server) => server.thp))
  if (thp !== undefined) {
    // Two shares behind one key are one share to whoever has that key.
    throw refuse(`two addresses have the signing key ${thp}: list a shared set as one server`)
  }
  const name = twice(nodes.map((node) => node.name))
  if (name !== undefined) throw refuse(`the node ${name} is listed twice`)
}

function impossible(problems: readonly { node: string; reason: string }[]): Error {
  const shown = problems.slice(0, 5).map(({ node, reason }) => `${node}: ${reason}`)
  const more = problems.length > shown.length ? `; and ${problems.length - shown.length} more` : ''
  return sealFault(
    'seal.placement_impossible',
    `${problems.length} nodes cannot be placed: ${shown.join('; ')}${more}`,
    {
      hint: 'ask for fewer servers per node, allow two of one region, or add key servers',
      details: { problems },
    },
  )
}

function refuse(reason: string): Error {
  return sealFault('seal.placement_impossible', `no placement: ${reason}`)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b)
}
