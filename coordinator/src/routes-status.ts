import { sign } from 'node:crypto'
import { canonicalJson, defined, Secret } from '@holdfast/base'
import { statusRoutes } from '@holdfast/protocol'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { record } from './audit.ts'
import { type Ceremony, type CeremonyDeps, listCeremonies } from './ceremonies.ts'
import { checkClaimToken } from './claim.ts'
import type { Coordinator } from './coordinator.ts'
import { dismiss } from './dismissal.ts'
import { coordinatorFault } from './faults.ts'
import { holderMargin, holderStates } from './holders.ts'
import { admitInstance } from './join.ts'
import { reasonTexts, sealedTexts } from './life.ts'
import { mount, type ServerDeps } from './mount.ts'
import { NodeCounter } from './node-counts.ts'
import { isUnreachable } from './store.ts'
import { putUser } from './users.ts'

export function mountStatus(app: OpenAPIHono, deps: ServerDeps, ceremonies: CeremonyDeps): void {
  const { coordinator, clock } = deps
  const nodes = new NodeCounter(coordinator.store, clock)
  mount(app, deps, statusRoutes.live, async () => ({ alive: true }))
  mount(app, deps, statusRoutes.ready, async ({ context }) => {
    const ready = coordinator.state === 'ready' || coordinator.state === 'running'
    if (!ready) context.status(503)
    return { ready }
  })
  mount(app, deps, statusRoutes.status, async () => await statusOf(deps, ceremonies, nodes))
  mount(app, deps, statusRoutes.identity, async ({ query }) =>
    signedState(coordinator, clock.now(), query.nonce),
  )
  mount(app, deps, statusRoutes.claim, async ({ body }) => {
    using password = Secret.copy(body.password)
    await makeRoom(coordinator, body.token, body.recoveryOfOldState)
    const cluster = await coordinator.claim(body.token, 'fleet', async (work) => {
      await putUser(work, body.user, ['admin'], password)
      await record(work, clock, {
        actor: `user:${body.user}`,
        action: 'coordinator.claim',
        subject: 'coordinator',
        outcome: 'done',
      })
    })
    return { cluster }
  })
  mount(app, deps, statusRoutes.join, async ({ body }) => ({
    sealed: await admitInstance(coordinator, body),
  }))
}

/** In recovery, the token of the console gives the old state up; it must also be said in words. */
async function makeRoom(
  coordinator: Coordinator,
  token: string,
  giveUp: 'give up' | undefined,
): Promise<void> {
  if (coordinator.state === 'uninitialised') return
  await checkClaimToken(coordinator.directory, token)
  if (giveUp === undefined)
    throw coordinatorFault(
      'coordinator.already_claimed',
      'this coordinator has a state, which claiming would give up',
      { hint: 'recover it: holdfast coordinator recover; or say that it is given up' },
    )
  await dismiss(coordinator, 'console', [])
}

async function statusOf(deps: ServerDeps, ceremonies: CeremonyDeps, nodes: NodeCounter) {
  const { coordinator, instance = 'coordinator' } = deps
  const people = await peopleOf(deps, ceremonies, nodes)
  const { state, reason, header, identity, sealedAt } = coordinator
  const { cluster, name, generation } = header ?? {}
  return {
    state,
    reason,
    ...(reason === 'key_missing' && sealedAt !== undefined ? sealedTexts : reasonTexts[reason]),
    instance,
    identity: identity.digest,
    ...people,
    ...defined({ cluster, name, generation }),
  }
}

/** What only the store knows. A status without it is still a status. */
async function peopleOf(deps: ServerDeps, ceremonies: CeremonyDeps, nodes: NodeCounter) {
  const { coordinator } = deps
  if (coordinator.reason === 'storage_unreachable') return { alarms: [] }
  try {
    return await readPeople(deps, ceremonies, nodes)
  } catch (error) {
    if (!isUnreachable(error)) throw error
    await coordinator.refresh()
    return { alarms: [] }
  }
}

async function readPeople(
  { coordinator, clock, alarms = async () => [] }: ServerDeps,
  ceremonies: CeremonyDeps,
  counter: NodeCounter,
) {
  const { header } = coordinator
  const own = await alarms()
  if (header === undefined) return { alarms: own }
  const nodes = await counter.count()
  const [open] = await listCeremonies(ceremonies, ['open', 'met'])
  const ceremony = open === undefined ? undefined : shortened(open)
  if (header.holders === undefined) {
    const alarm =
      'no holders have proven their shares yet: this state cannot be recovered by people'
    return { alarms: [alarm, ...own], nodes, ...defined({ ceremony }) }
  }
  const { threshold } = header.holders
  const list = await holderStates(coordinator.store, header)
  const { proven, alarm } = holderMargin(list, threshold, clock.now())
  return {
    alarms: alarm === undefined ? own : [alarm, ...own],
    holders: { threshold, list, provenWithin90Days: proven },
    nodes,
    ...defined({ ceremony }),
  }
}

function shortened({ id, kind, answered, threshold, expires }: Ceremony) {
  const missing = Math.max(0, threshold - answered.length)
  return { id, kind, answered: answered.map(({ holder }) => holder), missing, expires }
}

/** "I am in this state", signed by the identity key: what pinned clients believe during a recovery. */
function signedState(coordinator: Coordinator, now: number, nonce: unknown) {
  const { state, reason, header, identity } = coordinator
  const facts = {
    holdfast: 'coordinator-state',
    state,
    reason,
    at: now,
    nonce: nonce ?? null,
    cluster: header?.cluster ?? null,
    generation: header?.generation ?? null,
  }
  const statement = canonicalJson(facts)
  const signature = sign('sha256', Buffer.from(statement, 'utf8'), identity.key).toString(
    'base64url',
  )
  return {
    statement,
    signature,
    key: identity.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  }
}
