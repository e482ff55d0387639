import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, readBounded, systemClock, writeDurable } from '@holdfast/base'
import type { ApiClient } from '@holdfast/link/api-client'
import {
  type ManifestInput,
  manifestRoutes,
  nodeRoutes,
  roles,
  statusRoutes,
  userRoutes,
} from '@holdfast/protocol'
import type { z } from 'zod'
import { answer, softwareKey } from './ceremony-holder.ts'
import { CoordinatorProcess } from './coordinator-process.ts'
import { drillsFault } from './faults.ts'
import type { Command } from './fleet.ts'
import { FleetNode } from './fleet-node.ts'
import { type LocalHolder, makeHolders } from './holders.ts'

// A control plane on this machine: a real coordinator in a process of its own, claimed, with a manifest
// that its holders have proven, and real agents beside it, enrolled over the API as an operator does.
// Below its directory:
//   coordinator/     the coordinator's directory, with SQLite in it
//   holders/         the holders' private keys, so that one person can play all of them
//   nodes/NAME/      a node's directory and disk

export interface ControlPlanePlace {
  directory: string
  /**
   * Where nodes have what is lost with the power: on a tmpfs, of this fleet alone, and removed with it.
   * Default a new directory in /dev/shm.
   */
  memory?: string
  /** Runs the coordinator, and the agent. */
  programs: { coordinator: Command; agent: Command }
  /** A file with the addresses of PostgreSQL; default SQLite. */
  store?: string
}

export interface Founding {
  holders: readonly LocalHolder[]
  /** How many holders open the state together. Default 2. */
  holdersNeeded?: number
  /** What differs from `fleetManifest`. */
  manifest?: Partial<ManifestInput>
}

export interface ControlPlaneOptions extends ControlPlanePlace, Partial<Founding> {
  /** Told after each step, in words. */
  onProgress?: (step: string) => void
}

export type NodeView = z.output<typeof nodeRoutes.list.output>['nodes'][number]

/** An operator's way to the API. */
export interface Login {
  url: string
  identity: string
  user: string
  token: string
  /** Milliseconds since 1970. */
  expires: number
}

/** The name that the fleet's operator has; its password is in the file `password`. */
export const operator = 'admin'

/**
 * Starts a coordinator, claims it, makes three holders unless some are given, and sets a manifest that
 * they prove. Disposing ends every process; the directory stays.
 */
export async function startControlPlane(
  options: ControlPlaneOptions,
  signal?: AbortSignal,
): Promise<ControlPlane> {
  const { directory, onProgress = () => undefined } = options
  const [launched, made] = await Promise.allSettled([
    ControlPlane.launch(options),
    options.holders ?? makeHolders(join(directory, 'holders'), 3),
  ])
  if (launched.status === 'rejected') throw launched.reason
  const plane = launched.value
  try {
    if (made.status === 'rejected') throw made.reason
    signal?.throwIfAborted()
    onProgress(`the coordinator listens on ${plane.coordinator.url}`)
    await plane.found({ ...options, holders: made.value })
    signal?.throwIfAborted()
    onProgress('it is claimed, and its holders have proven their shares')
    return plane
  } catch (error) {
    await plane[Symbol.asyncDispose]()
    throw error
  }
}

/** What the local fleet agrees on: the operator, the holders, three guardians of which two open. */
export function fleetManifest(
  holders: readonly LocalHolder[],
  needed: number,
  changes: Partial<ManifestInput> = {},
): ManifestInput {
  const keys = holders.map(({ name, publicKey }) => [
    name,
    publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  ])
  return {
    version: 1,
    cluster: 'fleet',
    holders: { threshold: needed, keys: Object.fromEntries(keys) },
    users: { [operator]: { roles: [...roles] } },
    ...changes,
  }
}

/** Claims a new coordinator with its token, and makes an API token for its owner. */
async function claimCoordinator(
  coordinator: CoordinatorProcess,
  directory: string,
): Promise<Login> {
  const password = randomBytes(24).toString('base64url')
  await writeDurable(join(directory, 'password'), password, { mode: 0o600 })
  const token = (await readBounded(coordinator.claimToken, 1000)).toString('utf8').trim()
  using first = coordinator.client()
  const owner = { user: operator, password }
  await first.call(statusRoutes.claim, { body: { token, ...owner } })
  const { value, cookie } = await first.send(userRoutes.login, { body: owner })
  const headers = { cookie, 'x-csrf-token': value.csrf }
  const body = { label: 'local fleet', scopes: [...value.roles] }
  const made = await first.call(userRoutes.createToken, { headers, body })
  const { url, identity } = coordinator
  return { url, identity, user: operator, token: made.token, expires: made.expires }
}

/** Sets a manifest; as many holders as it needs answer the ceremony that it begins. */
async function setManifest(
  client: ApiClient,
  holders: readonly LocalHolder[],
  manifest: ManifestInput,
): Promise<void> {
  const { ceremony } = await client.call(manifestRoutes.set, { body: { manifest } })
  if (ceremony === undefined) return
  for (const holder of holders.slice(0, ceremony.threshold))
    await answer(client, ceremony.id, softwareKey(holder))
}

export class ControlPlane implements AsyncDisposable {
  readonly directory: string
  readonly coordinator: CoordinatorProcess
  readonly #place: ControlPlanePlace & { memory: string }
  readonly #nodes: FleetNode[] = []
  #started = 0
  readonly #stack: AsyncDisposableStack
  #holders: readonly LocalHolder[] = []
  #client: ApiClient | undefined
  #login: Login | undefined

  private constructor(
    place: ControlPlanePlace & { memory: string },
    coordinator: CoordinatorProcess,
    stack: AsyncDisposableStack,
  ) {
    this.directory = place.directory
    this.coordinator = coordinator
    this.#place = place
    this.#stack = stack
  }

  /** Starts a coordinator that nobody owns yet; nodes can be started, too. */
  static async launch(place: ControlPlanePlace): Promise<ControlPlane> {
    const { directory, programs, store } = place
    await ensureDirectory(directory)
    await using stack = new AsyncDisposableStack()
    const memory = place.memory ?? (await mkdtemp('/dev/shm/holdfast-nodes-'))
    stack.defer(() => rm(memory, { recursive: true, force: true }))
    const coordinator = await CoordinatorProcess.launch({
      name: 'coordinator-1',
      directory: join(directory, 'coordinator'),
      command: programs.coordinator,
      ...(store === undefined ? {} : { store }),
    })
    stack.use(coordinator)
    return new ControlPlane({ ...place, memory }, coordinator, stack.move())
  }

  /** Claims the coordinator and sets its first manifest, which as many holders as needed prove. */
  async found({ holders, holdersNeeded = 2, manifest }: Founding): Promise<void> {
    const login = await claimCoordinator(this.coordinator, this.directory)
    const client = this.#stack.use(this.coordinator.client({ token: login.token }))
    await setManifest(client, holders, fleetManifest(holders, holdersNeeded, manifest))
    this.#holders = holders
    this.#client = client
    this.#login = login
  }

  get holders(): readonly LocalHolder[] {
    return this.#holders
  }

  /** Calls the API as the operator. */
  get client(): ApiClient {
    if (this.#client !== undefined) return this.#client
    throw drillsFault('drills.check_failed', 'the coordinator has not been claimed yet')
  }

  /** How the operator is known, as `holdfast coordinator login` writes it down. */
  get login(): Login | undefined {
    return this.#login
  }

  /** The nodes that were started here. */
  get nodes(): readonly FleetNode[] {
    return this.#nodes
  }

  /** Starts the agent of a blank machine. Default names are `node-1`, `node-2`, ... */
  async startNode(
    name = `node-${this.#started + 1}`,
    command = this.#place.programs.agent,
  ): Promise<FleetNode> {
    this.#started += 1 // before anything is waited for: several may be started at once
    const { directory, memory } = this.#place
    const place = { name, home: join(directory, 'nodes', name), memory: join(memory, name) }
    const node = await FleetNode.launch({ ...place, command })
    if (this.#stack.disposed) {
      await node[Symbol.asyncDispose]()
      throw drillsFault('drills.interrupted', `${name} was started while its fleet ended`)
    }
    this.#nodes.push(this.#stack.use(node))
    return node
  }

  async invite(uses = 1, domain?: string): Promise<string> {
    const body = { uses, label: 'local fleet', ...(domain === undefined ? {} : { domain }) }
    return (await this.client.call(nodeRoutes.invite, { body })).token
  }

  /**
   * Enrols a node as an operator does, with the code from its console, and waits until its vault is
   * proven or, for one that needs guardians first, until it has accepted.
   * @throws Fault drills.check_failed, and those of the coordinator
   */
  async enrol(
    node: FleetNode,
    options: { invite: string; genesis?: boolean; signal?: AbortSignal },
  ): Promise<void> {
    const { invite, genesis = false, signal } = options
    const { address, code } = await node.console(signal)
    const body = { invite, address, code, name: node.name, genesis }
    const { enrolment, node: id } = await this.client.call(nodeRoutes.enrol, { body })
    node.renewed(id)
    await this.until(
      `${node.name} is enrolled`,
      async () => {
        const found = await this.client.call(nodeRoutes.enrolment, { params: { id: enrolment } })
        if (found.state !== 'failed') return found.state === 'enrolled' ? found : undefined
        const { code: reason = '', message = '' } = found
        throw drillsFault(
          'drills.check_failed',
          `${node.name} was not enrolled: ${reason} ${message}`,
        )
      },
      signal,
    )
  }

  /** Every node, as the coordinator sees it. */
  async views(): Promise<readonly NodeView[]> {
    return (await this.client.call(nodeRoutes.list)).nodes
  }

  async view(node: FleetNode): Promise<NodeView> {
    return await this.client.call(nodeRoutes.get, { params: { node: node.node } })
  }

  /** Asks until there is an answer. @throws Fault drills.timed_out after four minutes */
  async until<T>(
    what: string,
    look: () => Promise<T | undefined>,
    signal?: AbortSignal,
  ): Promise<T> {
    const deadline = performance.now() + 240_000
    while (performance.now() < deadline) {
      signal?.throwIfAborted()
      const found = await look()
      if (found !== undefined) return found
      await systemClock.sleep(500)
    }
    throw drillsFault('drills.timed_out', `"${what}" has not come true within four minutes`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}
