import { type Manifest, nodeRoutes } from '@holdfast/protocol'
import type { OpenAPIHono } from '@hono/zod-openapi'
import type { Agents } from './agents.ts'
import {
  approveCommand,
  type CommandRule,
  getCommand,
  listCommands,
  orderCommand,
} from './commands.ts'
import type { Coordinator } from './coordinator.ts'
import { checkDeparture } from './departures.ts'
import { enrolmentDeps } from './enrolment-deps.ts'
import { enrolNode } from './enrolment-driver.ts'
import { type EnrolmentState, getEnrolment } from './enrolments.ts'
import { coordinatorFault } from './faults.ts'
import { createInvite, listInvites, revokeInvite } from './invites.ts'
import { currentManifest, provenHolders, requireManifest } from './manifests.ts'
import { type Call, mount, type ServerDeps } from './mount.ts'
import {
  freezeNode,
  getNode,
  type Liveness,
  listNodes,
  nodeRow,
  removeNode,
  unfreezeNode,
} from './nodes.ts'
import { changeFreeze, publishFreeze, publishPolicy } from './nodes-documents.ts'
import { belowMargin, listReshares, shownReshares } from './reshare-shown.ts'
import { readViews, rulesOf } from './reshare-views.ts'
import type { Work } from './store.ts'

// The routes of invites, enrolments, nodes and commands. What changes something for agents is pushed
// at once to those that this instance holds; other instances see it within a second.

export interface NodeRoutesDeps extends ServerDeps {
  /** The agents of this instance; they start after the server that carries these routes. */
  agents(): Agents
  /** `https://host:port` of every instance: what nodes connect to. */
  coordinators: readonly string[]
}

export function mountNodes(app: OpenAPIHono, deps: NodeRoutesDeps): void {
  mountInvites(app, deps)
  mountRecords(app, deps)
  mountCommands(app, deps)
}

function mountInvites(app: OpenAPIHono, deps: NodeRoutesDeps): void {
  const { coordinator, clock } = deps
  const { store } = coordinator
  mount(app, deps, nodeRoutes.invite, async ({ body, caller }) =>
    store.write((work) => createInvite(work, clock, body, actor(caller))),
  )
  mount(app, deps, nodeRoutes.invites, async () => ({ invites: await listInvites(store.read) }))
  mount(app, deps, nodeRoutes.revokeInvite, async ({ params, caller }) => {
    await store.write((work) => revokeInvite(work, clock, params.id ?? '', actor(caller)))
    return { done: true as const }
  })
  mount(app, deps, nodeRoutes.enrol, async ({ body, caller }) =>
    enrolNode(enrolmentDeps(coordinator, clock, deps.coordinators), body, actor(caller)),
  )
  mount(app, deps, nodeRoutes.enrolment, async ({ params }) => {
    const row = await getEnrolment(store.read, params.id ?? '')
    return {
      enrolment: row.id,
      state: row.state as EnrolmentState, // only enrolments*.ts write the column
      ...(row.node === null ? {} : { node: row.node }),
      ...(row.code === null ? {} : { code: row.code }),
      ...(row.message === null ? {} : { message: row.message }),
    }
  })
}

function mountRecords(app: OpenAPIHono, deps: NodeRoutesDeps): void {
  const { coordinator, clock } = deps
  const { store } = coordinator
  const liveness = (): Liveness => ({ now: clock.now(), silence: deps.agents().silence })
  mount(app, deps, nodeRoutes.list, async () => {
    const reshares = await shownReshares(store.read)
    const nodes = await listNodes(store.read, liveness())
    return { nodes: nodes.map((node) => ({ ...node, ...reshares.get(node.node) })) }
  })
  mount(app, deps, nodeRoutes.get, async ({ params }) => {
    const node = await getNode(store.read, params.node ?? '', liveness())
    const reshares = await shownReshares(store.read, node.node)
    return { ...node, ...reshares.get(node.node) }
  })
  mount(app, deps, nodeRoutes.reshares, async () => {
    const { manifest } = (await currentManifest(coordinator)) ?? {}
    return {
      reshares: await listReshares(store.read),
      belowMargin:
        manifest === undefined ? [] : await belowMargin(store.read, manifest, liveness()),
    }
  })
  mount(app, deps, nodeRoutes.freeze, async ({ params, body, caller }) => {
    await withFreezeList(deps, (work) =>
      freezeNode(work, clock, params.node ?? '', body.reason, actor(caller)),
    )
    return { done: true as const }
  })
  mount(app, deps, nodeRoutes.unfreeze, async ({ params, caller }) => {
    await withFreezeList(deps, (work) =>
      unfreezeNode(work, clock, params.node ?? '', actor(caller)),
    )
    return { done: true as const }
  })
  mount(app, deps, nodeRoutes.remove, async ({ params, caller }) => {
    const node = params.node ?? ''
    await withFreezeList(deps, (work) => removeNode(work, clock, node, liveness(), actor(caller)))
    deps.agents().dismiss(node, 'the node was removed')
    return { done: true as const }
  })
}

function mountCommands(app: OpenAPIHono, deps: NodeRoutesDeps): void {
  const { coordinator, clock } = deps
  const { store } = coordinator
  mount(app, deps, nodeRoutes.command, async ({ params, body, caller }) => {
    const manifest = await requireManifest(coordinator)
    const node = params.node ?? ''
    await deps.agents().flush()
    const command = await store.write((work) =>
      orderCommand(work, clock, node, body, ruleOf(deps, manifest), actor(caller)),
    )
    await deps.agents().look()
    return command
  })
  mount(app, deps, nodeRoutes.commands, async ({ params }) => {
    await nodeRow(store.read, params.node ?? '')
    return { commands: await listCommands(store.read, params.node ?? '') }
  })
  mount(app, deps, nodeRoutes.commandState, async ({ params }) =>
    getCommand(store.read, params.id ?? ''),
  )
  mount(app, deps, nodeRoutes.approve, async ({ params, caller }) => {
    const rule = ruleOf(deps, await requireManifest(coordinator))
    await deps.agents().flush()
    const command = await store.write((work) =>
      approveCommand(work, clock, params.id ?? '', rule, actor(caller)),
    )
    await deps.agents().look()
    return command
  })
}

function ruleOf({ agents, clock }: NodeRoutesDeps, manifest: Manifest): CommandRule {
  return {
    twoPersonRule: manifest.twoPersonRule,
    depart: async (work, node, kind, force) => {
      const liveness = { now: clock.now(), silence: agents().silence }
      const pins = manifest.vault.pins !== undefined
      const views = await readViews(work, { ...liveness, pins })
      return checkDeparture(views, node, rulesOf(manifest), { kind, force })
    },
  }
}

/**
 * Changes who is frozen and publishes the list in the same transaction.
 * @throws Fault coordinator.data_key_sealed, node.too_many_frozen; then nothing has been changed
 */
async function withFreezeList(
  { agents, coordinator, clock }: NodeRoutesDeps,
  change: (work: Work) => Promise<void>,
): Promise<void> {
  const signer = await agents().signer()
  // Sealed since the request was let in: frozen in the records alone, every guardian would go on.
  if (signer === undefined)
    throw coordinatorFault('coordinator.data_key_sealed', 'the coordinator is sealed', {
      hint: 'holdfast coordinator status',
    })
  const publisher = { ...signer, now: clock.now() }
  await coordinator.store.write((work) => changeFreeze(work, publisher, change))
  await agents().look()
}

/**
 * Publishes what agents need of the manifest in force, and who is frozen, of which an older or
 * restored store may know something else; nothing when they have it already.
 */
export async function publishManifest(coordinator: Coordinator, agents: Agents): Promise<void> {
  const [signer, current] = [await agents.signer(), await currentManifest(coordinator)]
  if (signer === undefined || current === undefined) return
  const publisher = { ...signer, now: agents.now }
  const manifest = { ...current.manifest, holders: provenHolders(coordinator, current.manifest) }
  const { store } = coordinator
  // Apart from each other: a list that is too long keeps no policy back.
  await store.write((work) => publishPolicy(work, publisher, manifest, current.digest))
  await store.write((work) => publishFreeze(work, publisher))
  await agents.look()
}

function actor(caller: Call<typeof nodeRoutes.invite>['caller']): string {
  return `user:${caller?.user ?? 'nobody'}`
}
