import type { NodePhase } from '@holdfast/protocol'

// Who guards whom, decided. Pure: node views in, names out. A ward's guardians are spread over failure
// domains first, then kept where they are, then balanced by how much each guards already.

/** What placement knows of a node. */
export interface NodeView {
  node: string
  name: string
  /** Its failure domain; nodes without one count as one domain. */
  domain: string | undefined
  phase: NodePhase
  frozen: boolean
  /** Some instance has a session with it. */
  connected: boolean
  /** Milliseconds since 1970; 0 when it was never heard. */
  heardAt: number
  /** As the node reports them; epoch 0 and no guardians when nobody guards it yet. */
  epoch: number
  threshold: number
  guardians: readonly string[]
  /** It is being enrolled and formats its disk once it has guardians. */
  waiting: boolean
  /** It was enrolled before there were peers: the holders open it until it is guarded. */
  genesis: boolean
  /** It has been told to leave. */
  leaving: boolean
  /** Somebody who leaves has a share of it, or a key from an attempt that may still come true. */
  sharedWithLeaver: boolean
  /** It has been told to reboot and has not come back. */
  rebooting: boolean
}

export type NodeViews = ReadonlyMap<string, NodeView>

/** The manifest's guardian rules. */
export interface GuardianRules {
  count: number
  threshold: number
  margin: number
}

/** Guardians without which a set is not begun: threshold plus margin. */
export function leastGuardians({ threshold, margin }: GuardianRules): number {
  return threshold + margin
}

/** True for nodes that are in the fleet and stay there. A locked one guards, too. */
export function isMember({ phase }: Pick<NodeView, 'phase'>): boolean {
  return phase === 'open' || phase === 'locked'
}

/** True when it may be given a share, or may keep one. */
export function mayGuard(view: NodeView | undefined): view is NodeView {
  return view !== undefined && isMember(view) && !view.frozen && !view.leaving
}

/** True when it would answer a ward that asks now. */
export function answers(view: NodeView | undefined): view is NodeView {
  return view !== undefined && isMember(view) && !view.frozen && view.connected && !view.rebooting
}

/** A ward's guardians that would answer now, leaving one out. */
export function liveGuardians(ward: NodeView, views: NodeViews, without?: string): string[] {
  return ward.guardians.filter((id) => id !== without && answers(views.get(id)))
}

/** True when a guarded node has fewer living guardians than threshold plus margin. */
export function isBelowMargin(
  ward: NodeView,
  views: NodeViews,
  { margin }: Pick<GuardianRules, 'margin'>,
): boolean {
  if (!isMember(ward) || ward.guardians.length === 0) return false
  return liveGuardians(ward, views).length < ward.threshold + margin
}

/**
 * A guardian's list of peers, which holds its wards, has 1,024 places; the rest is for its own
 * guardians and for wards that are on their way from one set to another.
 */
export const mostWards = 900

/** True when the node may be given another ward. */
export function hasRoom(node: string, load: ReadonlyMap<string, number>): boolean {
  return (load.get(node) ?? 0) < mostWards
}

export interface PlacementOptions {
  /** Wards that each node guards already; whoever guards fewer comes first. */
  load?: ReadonlyMap<string, number>
  /** Taken only when there is nobody else: they have failed lately. */
  avoid?: ReadonlySet<string>
}

/**
 * Guardians for a ward: connected members that are neither frozen, nor leaving, nor the ward itself, and
 * have room for another ward. A domain of a few nodes in a large fleet fills up, and others step in.
 * The same input gives the same set, in order of ids; there may be fewer than `count`, or none.
 */
export function chooseGuardians(
  ward: Pick<NodeView, 'node' | 'guardians'>,
  candidates: Iterable<NodeView>,
  { count }: Pick<GuardianRules, 'count'>,
  { load = new Map(), avoid = new Set() }: PlacementOptions = {},
): string[] {
  const present = new Set(ward.guardians)
  const own = scatter(0x811c9dc5, ward.node)
  const left = [...candidates]
    .filter((view) => view.node !== ward.node && mayGuard(view) && answers(view))
    .filter(({ node }) => present.has(node) || hasRoom(node, load))
    .map((view) => ({
      node: view.node,
      domain: view.domain ?? '',
      rank: [
        avoid.has(view.node) ? 1 : 0,
        0, // how many of its domain have been taken
        present.has(view.node) ? 0 : 1,
        load.get(view.node) ?? 0,
        scatter(own, view.node),
      ],
    }))
  const chosen: string[] = []
  while (chosen.length < count) {
    const best = left.reduce<(typeof left)[number] | undefined>(
      (least, each) => (least === undefined || isBefore(each, least) ? each : least),
      undefined,
    )
    if (best === undefined) break
    chosen.push(best.node)
    left.splice(left.indexOf(best), 1)
    for (const { domain, rank } of left) if (domain === best.domain) rank[1] = (rank[1] ?? 0) + 1
  }
  return chosen.sort()
}

interface Ranked {
  node: string
  rank: readonly number[]
}

function isBefore(one: Ranked, other: Ranked): boolean {
  for (const [index, value] of one.rank.entries()) {
    const against = other.rank[index] ?? 0
    if (value !== against) return value < against
  }
  return one.node < other.node
}

/** FNV-1a, continued: over ward and node, so that equals are taken in another order for each ward. */
function scatter(hash: number, text: string): number {
  let mixed = hash
  for (let index = 0; index < text.length; index += 1)
    mixed = Math.imul(mixed ^ text.charCodeAt(index), 0x01000193) >>> 0
  return mixed
}

/** How many wards each node guards. */
export function loadOf(views: Iterable<NodeView>): Map<string, number> {
  const load = new Map<string, number>()
  for (const ward of views) {
    if (!isMember(ward)) continue
    addLoad(load, undefined, ward.guardians)
  }
  return load
}

/** Counts the next guardians of a ward, but those that guard it already and are counted. */
export function addLoad(
  load: Map<string, number>,
  ward: Pick<NodeView, 'guardians'> | undefined,
  next: readonly string[],
): void {
  for (const guardian of next)
    if (ward?.guardians.includes(guardian) !== true)
      load.set(guardian, (load.get(guardian) ?? 0) + 1)
}

/** A ward and the guardians that it is being given. */
export interface SetToBe {
  ward: string
  guardians: readonly string[]
}

/** How many wards each node guards when all that is under way has come to its end. */
export function loadToBe(views: NodeViews, underWay: Iterable<SetToBe>): Map<string, number> {
  const load = loadOf(views.values())
  for (const { ward, guardians } of underWay) addLoad(load, views.get(ward), guardians)
  return load
}

/** Somebody who would be left with too few guardians. */
export interface Stranded {
  node: string
  name: string
  /** Guardians that would answer. */
  live: number
  /** Guardians that there should be. */
  needed: number
}

/**
 * Whom it would take below threshold plus margin if this node were away, as in a reboot; the node
 * itself is among them when it could not open again by its own guardians.
 */
export function withoutNode(
  views: NodeViews,
  node: string,
  { margin }: Pick<GuardianRules, 'margin'>,
): Stranded[] {
  const stranded: Stranded[] = []
  for (const ward of views.values()) {
    const own = ward.node === node
    if (!isMember(ward) || !(own || ward.guardians.includes(node))) continue
    const needed = own ? Math.max(1, ward.threshold) : ward.threshold + margin
    const live = liveGuardians(ward, views, node).length
    if (own && ward.guardians.length === 0 && !ward.genesis) continue // its pins open it
    if (live < needed) stranded.push({ node: ward.node, name: ward.name, live, needed })
  }
  return stranded
}

/** Whose wards could not be moved to enough others if this node left. */
export function strandedByLeaving(
  views: NodeViews,
  node: string,
  rules: GuardianRules,
): Stranded[] {
  const others = [...views.values()].filter((view) => view.node !== node)
  const needed = leastGuardians(rules)
  const load = loadOf(others)
  return others.flatMap((ward) => {
    if (!isMember(ward) || !ward.guardians.includes(node)) return []
    const live = chooseGuardians(ward, others, rules, { load }).length
    return live < needed ? [{ node: ward.node, name: ward.name, live, needed }] : []
  })
}
