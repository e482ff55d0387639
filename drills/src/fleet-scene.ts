import { join } from 'node:path'
import { readIfPresent } from '@holdfast/base'
import { type ManifestInput, nodeRoutes, userRoutes } from '@holdfast/protocol'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import type { Stage } from './drill.ts'
import type { Command } from './fleet.ts'
import type { FleetNode } from './fleet-node.ts'
import { isGuarded } from './fleet-whole.ts'

// What the drills of nodes have in common: a coordinator with agents that guard each other, and what
// they claim of a node.

export interface FleetSize {
  /** Default 4: each node has the three others as guardians, any two of whom open it. */
  nodes?: number
  guardians?: ManifestInput['guardians']
  /** What else the manifest says. */
  manifest?: Partial<ManifestInput>
  /** Runs the agent of this node, other than `stage.agent`. */
  commandOf?: (name: string) => Command | undefined
}

/** A coordinator and nodes, of which none is enrolled yet. */
export async function setPlane(
  stage: Stage,
  manifest: Partial<ManifestInput> = {},
): Promise<ControlPlane> {
  const { directory, coordinator, agent, timeline, cleanup, signal } = stage
  const place = { directory: join(directory, 'fleet'), programs: { coordinator, agent }, manifest }
  const plane = cleanup.use(await startControlPlane(place, signal))
  timeline.note('a coordinator runs, claimed and with its holders', { url: plane.coordinator.url })
  return plane
}

/** A fleet whose nodes guard each other; the first one's temporary way is gone. */
export async function setGuardedFleet(
  stage: Stage,
  { nodes: count = 4, guardians, manifest, commandOf }: FleetSize = {},
): Promise<{ plane: ControlPlane; nodes: readonly FleetNode[] }> {
  const { timeline, signal } = stage
  const rules = { count: 3, threshold: 2, margin: 1, ...guardians }
  const plane = await setPlane(stage, {
    ...manifest,
    guardians: rules,
    genesis: { peers: count - 1 },
  })
  const nodes = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const name = `node-${index + 1}`
      return await plane.startNode(name, commandOf?.(name))
    }),
  )
  const invite = await plane.invite(count)
  const [first, ...others] = nodes
  if (first === undefined) throw new Error('a fleet has a first node')
  await plane.enrol(first, { invite, genesis: true, signal })
  await Promise.all(others.map((node) => plane.enrol(node, { invite, signal })))
  const guarded = await plane.until(
    'every node is guarded by others',
    async () => {
      const views = await plane.views()
      return views.length === count && views.every(isGuarded) ? views : undefined
    },
    signal,
  )
  timeline.proves('every node is opened by its guardians and by nothing temporary', true, {
    nodes: guarded.map(({ name }) => name),
    threshold: rules.threshold,
    guardians: rules.count,
  })
  return { plane, nodes }
}

/**
 * Waits until a node is open and the coordinator knows it. What the coordinator shows just after the node
 * has come back is from before.
 */
export async function isOpen(
  { timeline, signal }: Stage,
  step: string,
  plane: ControlPlane,
  node: FleetNode,
): Promise<void> {
  const view = await plane.until(
    `${node.name} is connected and open`,
    async () => {
      const found = await plane.view(node)
      const knows = found.connected && found.phase === 'open'
      return node.phase === 'open' && knows ? found : undefined
    },
    signal,
  )
  timeline.proves(step, true, { node: node.name, epoch: view.epoch })
}

/** Claims that a node has tried in vain to open since its last start; says what it was told. */
export async function staysLocked(
  { timeline, signal }: Stage,
  step: string,
  node: FleetNode,
  attempts = 3,
): Promise<void> {
  await node.until(
    'has tried in vain',
    () => (waits(node).length >= attempts || node.phase === 'open' ? true : undefined),
    signal,
  )
  const reasons = [...new Set(waits(node))].slice(-3)
  timeline.proves(step, node.phase === 'locked', { phase: node.phase ?? '', reasons })
}

function waits(node: FleetNode): string[] {
  return node.events.flatMap(({ kind, text }) => (kind === 'waiting' ? [String(text)] : []))
}

/**
 * Waits until nodes have a document that says this: they are told within a second or so, and whatever is
 * to be decided by it must not come before.
 */
export async function haveRead(
  { signal }: Stage,
  plane: ControlPlane,
  nodes: readonly FleetNode[],
  { document, says }: { document: 'freeze' | 'policy'; says: RegExp },
): Promise<void> {
  await plane.until(
    `${document} is known to ${nodes.map(({ name }) => name).join(', ')}`,
    async () => {
      const texts = await Promise.all(
        nodes.map(({ directory }) =>
          readIfPresent(join(directory, 'documents', `${document}.json`), 1024 * 1024),
        ),
      )
      return texts.every((text) => says.test(text?.toString('utf8') ?? '')) ? true : undefined
    },
    signal,
  )
}

/** Waits for an entry of the audit log and claims that it is there. */
export async function isAudited(
  { timeline, signal }: Stage,
  step: string,
  plane: ControlPlane,
  wanted: { action: string; text: RegExp },
): Promise<void> {
  const entry = await plane.until(
    step,
    async () => {
      const { entries } = await plane.client.call(userRoutes.audit, { query: { limit: 1000 } })
      return entries.find(
        ({ action, data }) => action === wanted.action && wanted.text.test(JSON.stringify(data)),
      )
    },
    signal,
  )
  timeline.proves(step, true, { action: entry.action, actor: entry.actor })
}

type Given = Pick<Parameters<ControlPlane['client']['call']>[1] & object, 'body'>

/** Tells a node to do something and waits for what came of it. */
export async function command(
  plane: ControlPlane,
  node: FleetNode,
  body: Given['body'] & object,
  signal?: AbortSignal,
) {
  const params = { node: node.node }
  const { id } = await plane.client.call(nodeRoutes.command, { params, body: body as never })
  return await plane.until(
    `the command has ended`,
    async () => {
      const found = await plane.client.call(nodeRoutes.commandState, { params: { id } })
      return ['done', 'failed', 'expired'].includes(found.state) ? found : undefined
    },
    signal,
  )
}
