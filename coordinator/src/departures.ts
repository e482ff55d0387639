import { type Clock, parseJsonObject } from '@holdfast/base'
import { record } from './audit.ts'
import { nextIssue } from './command-issues.ts'
import { nodeFault } from './nodes-faults.ts'
import {
  type GuardianRules,
  isMember,
  type NodeViews,
  type Stranded,
  strandedByLeaving,
  withoutNode,
} from './placement.ts'
import type { Store, Work } from './store.ts'

// Nodes that are to go, for a while or for good. A reboot takes a node's shares away for as long as it
// lasts, leaving takes them for ever: neither may take anyone below threshold plus margin unless
// somebody insists. A node that leaves is told only after its wards have moved.

/**
 * Whom it would strand; nobody when it may go.
 * @throws Fault node.needed unless `force`
 */
export function checkDeparture(
  views: NodeViews,
  node: string,
  rules: GuardianRules,
  { kind, force }: { kind: 'leave' | 'reboot'; force: boolean },
): Stranded[] {
  const stranded =
    kind === 'reboot' ? withoutNode(views, node, rules) : strandedByLeaving(views, node, rules)
  if (stranded.length === 0 || force) return stranded
  const names = namesOf(stranded)
  const text =
    kind === 'reboot'
      ? `while it is away, too few guardians would be left for ${names}`
      : `there are too few others to guard ${names}`
  throw nodeFault('node.needed', text, {
    hint: 'enrol more nodes or bring guardians back; --force does it all the same',
    details: { stranded },
  })
}

/** Names of the stranded, at most ten. */
export function namesOf(stranded: readonly Stranded[]): string {
  const names = stranded.slice(0, 10).map(({ name }) => name)
  const more = stranded.length - names.length
  return names.join(', ') + (more > 0 ? ` and ${more} more` : '')
}

/** Writes down whom a forced departure strands. */
export async function recordStranded(
  work: Work,
  clock: Clock,
  { node, kind, by }: { node: string; kind: string; by: string },
  stranded: readonly Stranded[],
): Promise<void> {
  const data = {
    stranded: stranded.map(({ node: each }) => each).slice(0, 100),
    count: stranded.length,
  }
  const event = {
    actor: by,
    action: `node.${kind}_forced`,
    subject: node,
    outcome: 'done' as const,
  }
  await record(work, clock, { ...event, data })
}

/**
 * Lets nodes leave whose wards have all moved and whose keys are gone, and says how far the others
 * are. A forced one does not wait for wards that cannot be moved.
 */
export async function releaseLeavers(
  store: Store,
  clock: Clock,
  views: NodeViews,
  rules: GuardianRules,
): Promise<number> {
  const waiting = await store.read
    .selectFrom('commands')
    .select(['id', 'node', 'arguments', 'progress'])
    .where('state', '=', 'preparing')
    .orderBy('issue')
    .execute()
  let changed = 0
  for (const { id, node, arguments: given, progress } of waiting) {
    const { force } = parseJsonObject(given, "the command's arguments")
    const left = await stillGuarded(store, views, node)
    const stuck =
      force === true ? strandedByLeaving(views, node, rules).map((each) => each.node) : []
    const waits = left.filter((ward) => !stuck.includes(ward))
    const change =
      waits.length === 0
        ? { state: 'waiting' }
        : { progress: `${waits.length} nodes are being moved to other guardians` }
    if (change.progress === progress) continue
    await store.write(async (work) => {
      // Signed under a number of now: it may have waited for longer than its node remembers orders.
      const issue = 'state' in change ? { issue: await nextIssue(work, clock.now()) } : {}
      await work
        .updateTable('commands')
        .set({ ...change, ...issue })
        .where('id', '=', id)
        .where('state', '=', 'preparing')
        .execute()
    })
    changed += 1
  }
  return changed
}

/** Members that have this node as a guardian, or for which it still has a key. */
async function stillGuarded(store: Store, views: NodeViews, node: string): Promise<string[]> {
  const keys = await store.read
    .selectFrom('ward_keys')
    .select('ward')
    .where('guardian', '=', node)
    .execute()
  const wards = [...views.values()].filter(
    (view) => isMember(view) && view.guardians.includes(node),
  )
  return [...new Set([...keys.map(({ ward }) => ward), ...wards.map((ward) => ward.node)])]
}
