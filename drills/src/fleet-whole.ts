import { createHash } from 'node:crypto'
import { rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { ManifestInput } from '@holdfast/protocol'
import { ControlPlane, type NodeView } from './control-plane.ts'
import type { Command, FleetProgress } from './fleet.ts'
import type { FleetNode } from './fleet-node.ts'
import { type ControlPlaneState, NodeWatch } from './fleet-nodes.ts'
import { type RunningFleet, startLocalFleet } from './local-fleet.ts'
import { Steps } from './steps.ts'

// The whole of a fleet on this machine, for `holdfast up`: the key servers and the volume of the local
// fleet, a coordinator, and nodes that are enrolled as real ones are. The vaults of the nodes need
// their guardians and two of the key servers.

export interface WholeFleetOptions {
  /** Made when absent (mode 0700); must be empty otherwise. */
  directory: string
  programs: { keyserver: Command; coordinator: Command; agent: Command }
  /** How many nodes; none, or at least three. */
  nodes: number
  onProgress?: (progress: FleetProgress) => void
}

export interface WholeFleet extends AsyncDisposable {
  readonly local: RunningFleet
  readonly plane: ControlPlane | undefined
  /** How the coordinator and the nodes stand; undefined in a fleet without nodes. */
  look(): Promise<ControlPlaneState | undefined>
  /** Lets the next node prove every way in. */
  rehearseNext(signal?: AbortSignal): Promise<void>
}

/** statfs(2): TMPFS_MAGIC. */
const tmpfs = 0x01021994

/** How many steps the start of a whole fleet has: of the servers and the volume, and of its nodes. */
export function stepsOf(nodes: number): number {
  return 5 + (nodes === 0 ? 0 : 2 + 3 * nodes)
}

/**
 * Starts all of it, enrols the nodes, the first of them by genesis, and returns when every node is
 * guarded by others and its temporary way is gone. Disposing ends every process and removes what is in
 * the directory.
 * @throws Fault drills.*, and those of the parts
 */
export async function startWholeFleet(
  options: WholeFleetOptions,
  signal?: AbortSignal,
): Promise<WholeFleet> {
  const { directory, programs, nodes: count } = options
  const steps = new Steps(stepsOf(count), options.onProgress)
  await using stack = new AsyncDisposableStack()
  const local = stack.use(
    await startLocalFleet(
      { directory, command: programs.keyserver, onProgress: ({ step }) => steps.finish(step) },
      signal,
    ),
  )
  if (count === 0) return wholeFleet(local, undefined, stack.move())
  const memory = await memoryOf(directory)
  const plane = stack.use(await ControlPlane.launch({ directory, memory, programs }))
  const nodes = await startNodes(plane, count, steps)
  signal?.throwIfAborted()
  steps.finish(`the coordinator listens on ${plane.coordinator.url}`)
  await plane.found({ holders: local.holders, manifest: await manifestOf(local, count) })
  signal?.throwIfAborted()
  steps.finish('the coordinator is claimed, and two of three holders have proven their shares')
  await enrolAll(plane, nodes, steps, signal)
  await guarded(plane, nodes, steps, signal)
  return wholeFleet(local, plane, stack.move())
}

/**
 * Where nodes of this fleet have their memory: always the same place for the same directory, so that
 * the next start finds and clears what a killed one left.
 */
async function memoryOf(directory: string): Promise<string> {
  if ((await statfs(directory)).type === tmpfs) return join(directory, 'memory')
  const name = createHash('sha256').update(directory).digest('hex').slice(0, 16)
  const memory = `/dev/shm/holdfast-fleet-${name}`
  await rm(memory, { recursive: true, force: true })
  return memory
}

function wholeFleet(
  local: RunningFleet,
  plane: ControlPlane | undefined,
  stack: AsyncDisposableStack,
): WholeFleet {
  const watch = plane === undefined ? undefined : new NodeWatch(plane)
  return {
    local,
    plane,
    look: async () => await watch?.look(),
    rehearseNext: async (signal) => await watch?.rehearseNext(signal),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

async function startNodes(plane: ControlPlane, count: number, steps: Steps): Promise<FleetNode[]> {
  const started = await Promise.allSettled(
    Array.from({ length: count }, async (_, index) => {
      const node = await plane.startNode(`node-${index + 1}`)
      steps.finish(`${node.name} runs`)
      return node
    }),
  )
  return started.map((one) => {
    if (one.status === 'fulfilled') return one.value
    throw one.reason
  })
}

/** As many guardians as there are others, five at most; two of the key servers beside them. */
async function manifestOf(
  { servers }: RunningFleet,
  nodes: number,
): Promise<Partial<ManifestInput>> {
  const count = Math.min(5, nodes - 1)
  const majority = Math.floor(count / 2) + 1
  const tang = await Promise.all(servers.map((server) => server.pin()))
  return {
    guardians: { count, threshold: majority, margin: Math.min(1, count - majority) },
    genesis: { peers: count },
    vault: { unlock: 'peers-and-pins', pins: { t: 2, pins: { tang } } },
  }
}

/** The first by genesis, the others together. */
async function enrolAll(
  plane: ControlPlane,
  nodes: readonly FleetNode[],
  steps: Steps,
  signal: AbortSignal | undefined,
): Promise<void> {
  const invite = await plane.invite(nodes.length)
  const enrol = async (node: FleetNode, genesis: boolean) => {
    await plane.enrol(node, { invite, genesis, ...(signal === undefined ? {} : { signal }) })
    steps.finish(`${node.name} is enrolled`)
  }
  const [first, ...others] = nodes
  if (first !== undefined) await enrol(first, true)
  await Promise.all(others.map((node) => enrol(node, false)))
}

/** Waits until every node is opened by guardians and by nothing temporary. */
async function guarded(
  plane: ControlPlane,
  nodes: readonly FleetNode[],
  steps: Steps,
  signal: AbortSignal | undefined,
): Promise<void> {
  const done = new Set<string>()
  await plane.until(
    'every node is guarded by others',
    async () => {
      for (const view of await plane.views()) {
        if (done.has(view.node) || !isGuarded(view)) continue
        done.add(view.node)
        steps.finish(`${view.name} is opened by ${view.threshold} of ${view.guardians.length}`)
      }
      return done.size >= nodes.length ? true : undefined
    },
    signal,
  )
}

/** True when guardians open the node, which was proven, and no temporary way is left. */
export function isGuarded({ phase, epoch, report }: NodeView): boolean {
  const automatic = report?.ways.filter(({ purpose }) => purpose === 'automatic') ?? []
  const proven = automatic.some(
    ({ label, state }) => label === `epoch ${epoch}` && state === 'proven',
  )
  return phase === 'open' && epoch > 0 && automatic.length === 1 && proven
}
