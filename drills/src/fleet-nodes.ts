import { isFault, isObject, systemClock } from '@holdfast/base'
import { nodeRoutes } from '@holdfast/protocol'
import type { ControlPlane, NodeView } from './control-plane.ts'
import type { CoordinatorStatus } from './coordinator-process.ts'
import type { FleetNode } from './fleet-node.ts'

// How the nodes of the local fleet stand: what the coordinator knows, what the agents said last, and
// what the last rehearsal of each has proven.

export interface NodeState {
  name: string
  /** The node's id. */
  node: string
  /** The agent's process; undefined while it is not running. */
  pid: number | undefined
  phase: string
  connected: boolean
  /** The number of its set of guardians; 0 while the holders stand in for them. */
  epoch: number
  threshold: number
  guardians: number
  wards: number
  /** Guardians more than needed that would answer; negative when too few would. */
  margin: number | undefined
  /** When its vault was last opened by its guardians, or proven that it would; milliseconds. */
  lastProof: number | undefined
  /** The newest thing that went wrong, while it is not open. */
  note: string
}

export interface ControlPlaneState {
  coordinator: {
    name: string
    url: string
    pid: number | undefined
    /** `stopped` when no process runs, `silent` when it does not answer. */
    state: CoordinatorStatus['state'] | 'stopped' | 'silent'
    text: string
    hint: string
  }
  nodes: readonly NodeState[]
}

interface Proof {
  at: number
  healthy: number
  epoch: number
}

/** `node-10` comes after `node-9`. */
const byNumber = new Intl.Collator('en', { numeric: true })

/** Looks at the nodes of a control plane, and rehearses them one after the other. */
export class NodeWatch {
  readonly #plane: ControlPlane
  readonly #proofs = new Map<string, Proof>()
  #views: ReadonlyMap<string, NodeView> = new Map()
  #turn = 0

  constructor(plane: ControlPlane) {
    this.#plane = plane
  }

  /** How everything stands; while the coordinator is sealed, what was known of the nodes before. */
  async look(): Promise<ControlPlaneState> {
    const { coordinator, nodes } = this.#plane
    const { name, url, pid } = coordinator
    const { state, text, hint } = await this.#ask()
    if (state === 'running') await this.#readViews()
    return {
      coordinator: { name, url, pid, state, text, hint },
      nodes: nodes
        .toSorted((a, b) => byNumber.compare(a.name, b.name))
        .map((node) => this.#state(node, state === 'running')),
    }
  }

  /**
   * Lets the next node that is connected prove every way in, and every guardian's share. While the
   * coordinator cannot tell it to, the proofs grow old, which shows.
   */
  async rehearseNext(signal?: AbortSignal): Promise<void> {
    try {
      await this.#rehearseNext(signal)
    } catch (error) {
      if (!isFault(error)) throw error
    }
  }

  async #rehearseNext(signal?: AbortSignal): Promise<void> {
    const { client, nodes } = this.#plane
    for (let tried = 0; tried < nodes.length; tried += 1) {
      const node = nodes[this.#turn++ % nodes.length]
      if (node === undefined || !this.#isReady(node)) continue
      const params = { node: node.node }
      const body = { command: 'rehearse' as const }
      const { id } = await client.call(nodeRoutes.command, { params, body })
      await this.#resultOf(node, id, signal)
      return
    }
  }

  #isReady(node: FleetNode): boolean {
    const view = this.#views.get(node.node)
    return node.pid !== undefined && view?.connected === true && view.phase === 'open'
  }

  async #resultOf(node: FleetNode, id: string, signal?: AbortSignal): Promise<void> {
    for (let round = 0; round < 40; round += 1) {
      await systemClock.sleep(500, signal)
      const { state, result } = await this.#plane.client.call(nodeRoutes.commandState, {
        params: { id },
      })
      if (state === 'failed' || state === 'expired') return
      if (state !== 'done') continue
      const { guardians } = isObject(result) ? result : { guardians: [] }
      const list = Array.isArray(guardians) ? guardians : []
      const healthy = list.filter((one) => isObject(one) && one.healthy === true).length
      const epoch = this.#views.get(node.node)?.epoch ?? 0
      this.#proofs.set(node.node, { at: systemClock.now(), healthy, epoch })
      return
    }
  }

  async #ask(): Promise<Pick<ControlPlaneState['coordinator'], 'state' | 'text' | 'hint'>> {
    const { coordinator } = this.#plane
    if (coordinator.pid === undefined) return { state: 'stopped', text: 'no process', hint: '' }
    try {
      const { state, text, hint } = await coordinator.status()
      return { state, text, hint }
    } catch (error) {
      if (!isFault(error)) throw error
      return { state: 'silent', text: error.message, hint: error.hint ?? '' }
    }
  }

  async #readViews(): Promise<void> {
    try {
      this.#views = new Map((await this.#plane.views()).map((view) => [view.node, view]))
    } catch (error) {
      if (!isFault(error)) throw error // sealed or ended just now: the next look says so
    }
  }

  #state(node: FleetNode, known: boolean): NodeState {
    const view = this.#views.get(node.node)
    const { epoch = 0, threshold = 0, guardians = [], wards = [] } = view ?? {}
    const connected = known && node.pid !== undefined && view?.connected === true
    const phase = node.pid === undefined ? 'off' : (node.phase ?? view?.phase ?? 'starting')
    const provenAt = view?.report?.ways
      .filter(({ purpose, state }) => purpose === 'automatic' && state === 'proven')
      .flatMap(({ provenAt: at }) => at ?? [])
    const proof = this.#proofs.get(node.node)
    return {
      ...{ name: node.name, node: node.node, pid: node.pid, phase, connected, epoch, threshold },
      ...{ guardians: guardians.length, wards: wards.length },
      margin: this.#margin(view),
      lastProof: newest([...(provenAt ?? []), ...(proof === undefined ? [] : [proof.at])]),
      note: phase === 'open' ? '' : (view?.report?.lastErrors[0] ?? ''),
    }
  }

  /** From the guardians that are there now, or fewer when the last rehearsal found fewer shares. */
  #margin(view: NodeView | undefined): number | undefined {
    if (view === undefined || view.guardians.length === 0) return undefined
    const present = view.guardians.filter((guardian) => {
      const node = this.#plane.nodes.find((one) => one.node === guardian)
      return node === undefined || node.pid !== undefined
    }).length
    const proof = this.#proofs.get(view.node)
    const healthy = proof !== undefined && proof.epoch === view.epoch ? proof.healthy : present
    return Math.min(present, healthy) - view.threshold
  }
}

function newest(moments: readonly number[]): number | undefined {
  return moments.length === 0 ? undefined : Math.max(...moments)
}
