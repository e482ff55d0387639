import type { KeyObject } from 'node:crypto'
import { type Clock, canonicalJson, parseJson } from '@holdfast/base'
import { record } from './audit.ts'
import { type NodeRow, portsOf } from './nodes.ts'
import { publishPeers } from './nodes-documents.ts'
import type { Decision, Need, Reshare } from './reshare-plan.ts'
import { readEpochs } from './reshare-views.ts'
import type { Work } from './store.ts'
import { noteSet, retireAll, retireBefore, retireUnused } from './ward-keys.ts'
import { newId } from './ways.ts'

// What decisions about re-shares change in the store, many in one transaction. Every change names the
// state that it starts from, so that a decision that was made twice, or too late, changes nothing.

export interface Move {
  reshare: Reshare
  decision: Decision
}

export interface MoveDeps {
  clock: Clock
  /** Signs the lists of peers; needed when a decision changes some. */
  signer: { key: KeyObject; cluster: string } | undefined
}

/** True when tunnels are needed, or not needed any more, because of it. */
export function changesPeers({ to }: Decision): boolean {
  return to === 'preparing' || to === 'failed'
}

/** Writes down what is due, for wards that have nothing under way. */
export async function planReshares(work: Work, now: number, due: readonly Need[]): Promise<number> {
  if (due.length === 0) return 0
  const wards = due.map(({ ward }) => ward)
  const present = await work
    .selectFrom('reshares')
    .select('ward')
    .where('ward', 'in', wards)
    .where('state', 'in', ['planned', 'preparing', 'ordered', 'retiring'])
    .execute()
  const taken = new Set(present.map(({ ward }) => ward))
  const rows = due
    .filter(({ ward }) => !taken.has(ward))
    .map(({ ward, cause }) => ({
      id: newId(),
      ward,
      cause,
      state: 'planned',
      epoch: 0,
      threshold: 0,
      guardians: '[]',
      created: now,
      since: now,
      blamed: '[]',
    }))
  if (rows.length > 0) await work.insertInto('reshares').values(rows).execute()
  return rows.length
}

/** Carries decisions out; says how many still fitted. */
export async function applyMoves(
  work: Work,
  deps: MoveDeps,
  moves: readonly Move[],
): Promise<number> {
  let applied = 0
  const affected = new Set<string>()
  for (const { reshare, decision } of moves) {
    if (!(await isStill(work, reshare))) continue
    if (await apply(work, deps, reshare, decision)) applied += 1
    const guardians = decision.to === 'preparing' ? decision.guardians : reshare.guardians
    if (changesPeers(decision)) for (const node of [reshare.ward, ...guardians]) affected.add(node)
  }
  const { signer } = deps
  if (signer !== undefined && affected.size > 0)
    await publishPeers(work, { ...signer, now: deps.clock.now() }, affected)
  return applied
}

/** True while it is in the state that the decision was made in. */
async function isStill(work: Work, { id, state }: Reshare): Promise<boolean> {
  const row = await work
    .selectFrom('reshares')
    .select('state')
    .where('id', '=', id)
    .executeTakeFirst()
  return row?.state === state
}

async function apply(
  work: Work,
  deps: MoveDeps,
  reshare: Reshare,
  decision: Decision,
): Promise<boolean> {
  switch (decision.to) {
    case 'dropped':
      await work.deleteFrom('reshares').where('id', '=', reshare.id).execute()
      return true
    case 'planned': {
      const { message } = decision
      await work.updateTable('reshares').set({ message }).where('id', '=', reshare.id).execute()
      return true
    }
    case 'preparing':
      return await prepare(work, deps, reshare, decision)
    case 'ordered':
      return await order(work, deps, reshare)
    case 'retiring':
      await retireBefore(work, reshare.ward, reshare.epoch)
      await enter(work, deps, reshare, 'retiring')
      return true
    case 'done':
      return await finish(work, deps, reshare)
    case 'failed':
      return await fail(work, deps, reshare, decision)
    default:
      return decision satisfies never
  }
}

/** Asks the guardians for their keys; their lists of peers are published with it. */
async function prepare(
  work: Work,
  deps: MoveDeps,
  reshare: Reshare,
  { threshold, guardians }: Decision & { to: 'preparing' },
): Promise<boolean> {
  const ward = await nodeIn(work, reshare.ward)
  if (ward === undefined) return false
  // Another instance may have used the epoch that was looked up before.
  const used = (await readEpochs(work, [ward.node])).get(ward.node) ?? 0
  const epoch = Math.max(used, ward.epoch) + 1
  const { identity } = ward
  const asked = guardians.map((guardian) => ({
    ...{ ward: ward.node, epoch, guardian, identity },
    ...{ state: 'asked', errand: newId() },
  }))
  if (asked.length > 0) await work.insertInto('ward_keys').values(asked).execute()
  // What an older or restored store does not know of the set in use is to be retired, too.
  await noteSet(work, ward)
  const columns = { epoch, threshold, guardians: canonicalJson(guardians), message: null }
  await work.updateTable('reshares').set(columns).where('id', '=', reshare.id).execute()
  await enter(work, deps, reshare, 'preparing')
  await audit(work, deps, reshare, 'begin', { epoch, threshold, guardians })
  return true
}

/** The order as the ward gets it, now and at every repetition. */
async function order(work: Work, deps: MoveDeps, reshare: Reshare): Promise<boolean> {
  const keys = await work
    .selectFrom('ward_keys')
    .innerJoin('nodes', 'nodes.node', 'ward_keys.guardian')
    .select(['nodes.node', 'nodes.address', 'nodes.identity', 'nodes.domain', 'nodes.ports'])
    .select(['ward_keys.key', 'ward_keys.signature'])
    .where('ward_keys.ward', '=', reshare.ward)
    .where('ward_keys.epoch', '=', reshare.epoch)
    .where('ward_keys.state', '=', 'made')
    .orderBy('nodes.node')
    .execute()
  const chosen = new Set(reshare.guardians)
  const guardians = keys
    .filter(({ node }) => chosen.has(node))
    .map(({ key, signature, ...node }) => ({
      ...guardianOf(node),
      key: parseJson(key ?? '', 'the key'),
      signature,
    }))
  if (guardians.length !== reshare.guardians.length) return false
  await work
    .updateTable('reshares')
    .set({ order: canonicalJson(guardians) })
    .where('id', '=', reshare.id)
    .execute()
  await enter(work, deps, reshare, 'ordered')
  await audit(work, deps, reshare, 'order', { epoch: reshare.epoch })
  return true
}

function guardianOf(row: Pick<NodeRow, 'node' | 'address' | 'identity' | 'domain' | 'ports'>) {
  return {
    node: row.node,
    addresses: [`https://${row.address}:${portsOf(row).peer}`],
    identity: row.identity,
    ...(row.domain === null ? {} : { domain: row.domain }),
  }
}

async function finish(work: Work, deps: MoveDeps, reshare: Reshare): Promise<boolean> {
  const { ward, epoch } = reshare
  // The audit log keeps the others; this one says how old the set in use is.
  await work.deleteFrom('reshares').where('ward', '=', ward).where('state', '=', 'done').execute()
  await enter(work, deps, reshare, 'done')
  const waiting = await work
    .selectFrom('ward_keys')
    .select('guardian')
    .where('ward', '=', ward)
    .where('epoch', '<', epoch)
    .orderBy('epoch')
    .orderBy('guardian')
    .execute()
  const pending = waiting.map(({ guardian }) => guardian)
  await audit(work, deps, reshare, 'done', {
    ...{ epoch, threshold: reshare.threshold, guardians: reshare.guardians },
    ...(pending.length === 0 ? {} : { notYetRetired: pending }),
  })
  return true
}

async function fail(
  work: Work,
  deps: MoveDeps,
  reshare: Reshare,
  { code, message, blamed }: Decision & { to: 'failed' },
): Promise<boolean> {
  const columns = { code, message, blamed: canonicalJson(blamed) }
  await work.updateTable('reshares').set(columns).where('id', '=', reshare.id).execute()
  await enter(work, deps, reshare, 'failed')
  if (code === 'reshare.ward_gone') await retireAll(work, reshare.ward)
  else if (reshare.state === 'preparing') await retireUnused(work, reshare)
  await audit(work, deps, reshare, 'fail', { epoch: reshare.epoch, code, message }, 'failed')
  return true
}

async function enter(
  work: Work,
  { clock }: MoveDeps,
  { id }: Reshare,
  state: Reshare['state'],
): Promise<void> {
  const since = clock.now()
  await work.updateTable('reshares').set({ state, since }).where('id', '=', id).execute()
}

async function audit(
  work: Work,
  { clock }: MoveDeps,
  { ward, cause }: Reshare,
  what: string,
  data: Record<string, unknown>,
  outcome: 'done' | 'failed' = 'done',
): Promise<void> {
  const event = { actor: 'coordinator', action: `reshare.${what}`, subject: ward, outcome }
  await record(work, clock, { ...event, data: { cause, ...data } })
}

async function nodeIn(work: Work, node: string): Promise<NodeRow | undefined> {
  return await work.selectFrom('nodes').selectAll().where('node', '=', node).executeTakeFirst()
}

/** Forgets failed re-shares of long ago; a ward's highest epoch is kept. */
export async function pruneReshares(work: Work, before: number): Promise<void> {
  await work
    .deleteFrom('reshares')
    .where('state', '=', 'failed')
    .where('since', '<', before)
    .where(({ exists, selectFrom }) =>
      exists(
        selectFrom('reshares as later')
          .select('later.id')
          .whereRef('later.ward', '=', 'reshares.ward')
          .whereRef('later.epoch', '>', 'reshares.epoch'),
      ),
    )
    .execute()
}
