import { type Clock, canonicalJson, parseJson } from '@holdfast/base'
import type { nodeSchema } from '@holdfast/protocol'
import { type NodeReport, nodeReportSchema } from '@holdfast/protocol/frames'
import type { Selectable } from 'kysely'
import { z } from 'zod'
import { record } from './audit.ts'
import { releaseAddress } from './leases.ts'
import { nodeFault } from './nodes-faults.ts'
import type { Database, Work } from './store.ts'
import type { NodeTable } from './tables.ts'
import { endKeys } from './ward-keys.ts'

// Node records. What a node says about itself is stored as it came; what the fleet decides about a
// node (frozen, removed) is stored beside it and never overwritten by a report.

export type Node = z.infer<typeof nodeSchema>
export type NodeRow = Selectable<NodeTable>

const portsSchema = z.object({ peer: z.number().int(), wireguard: z.number().int() })
const freezeSchema = z.object({ reason: z.string(), since: z.number() })

/** Milliseconds after which a node that nobody has heard counts as not connected. */
export interface Liveness {
  now: number
  silence: number
}

export async function listNodes(database: Database | Work, liveness: Liveness): Promise<Node[]> {
  const rows = await database.selectFrom('nodes').selectAll().orderBy('name').execute()
  const wards = wardsByGuardian(rows)
  return rows.map((row) => shownNode(row, wards.get(row.node) ?? [], liveness))
}

/** @throws Fault node.unknown */
export async function getNode(
  database: Database | Work,
  node: string,
  liveness: Liveness,
): Promise<Node> {
  const row = await nodeRow(database, node)
  return shownNode(row, await wardsOf(database, node), liveness)
}

/** @throws Fault node.unknown */
export async function nodeRow(database: Database | Work, node: string): Promise<NodeRow> {
  const row = await database
    .selectFrom('nodes')
    .selectAll()
    .where('node', '=', node)
    .executeTakeFirst()
  if (row !== undefined) return row
  throw nodeFault('node.unknown', `there is no node ${node}`, {
    hint: 'list them: holdfast node list',
  })
}

/** Made once: this is asked for every node of a fleet, again and again. */
const guardiansSchema = z.array(z.string())

export function guardiansOf(row: Pick<NodeRow, 'guardians'>): string[] {
  return guardiansSchema.parse(parseJson(row.guardians, 'the guardians'))
}

export function portsOf(row: Pick<NodeRow, 'ports'>): { peer: number; wireguard: number } {
  return portsSchema.parse(parseJson(row.ports, 'the ports'))
}

/** The nodes whose shares this one keeps, by name. */
async function wardsOf(database: Database | Work, node: string): Promise<string[]> {
  const rows = await database
    .selectFrom('nodes')
    .select(['node', 'guardians'])
    .where('guardians', 'like', `%"${node}"%`)
    .where('phase', 'not in', ['left', 'wiped'])
    .orderBy('name')
    .execute()
  return rows.filter((row) => guardiansOf(row).includes(node)).map((row) => row.node)
}

function wardsByGuardian(rows: readonly NodeRow[]): Map<string, string[]> {
  const wards = new Map<string, string[]>()
  for (const row of rows) {
    if (row.phase === 'left' || row.phase === 'wiped') continue
    for (const guardian of guardiansOf(row))
      wards.set(guardian, [...(wards.get(guardian) ?? []), row.node])
  }
  return wards
}

/** Says whether an instance holds a session with the node, by when it was last heard. */
export function isConnected(
  row: Pick<NodeRow, 'instance' | 'heard_at'>,
  { now, silence }: Liveness,
): boolean {
  return row.instance !== null && row.heard_at !== null && row.heard_at > now - silence
}

function shownNode(row: NodeRow, wards: string[], liveness: Liveness): Node {
  const report =
    row.report === null
      ? undefined
      : nodeReportSchema.safeParse(parseJson(row.report, 'the report')).data
  return {
    node: row.node,
    name: row.name,
    address: row.address,
    peerPort: portsOf(row).peer,
    phase: phaseOf(row.phase),
    connected: isConnected(row, liveness),
    epoch: row.epoch,
    threshold: row.threshold,
    guardians: guardiansOf(row),
    wards,
    frozen: row.frozen !== 0,
    ...(row.heard_at === null ? {} : { heardAt: row.heard_at }),
    ...(row.domain === null ? {} : { domain: row.domain }),
    ...(report === undefined ? {} : { report }),
  }
}

function phaseOf(text: string): Node['phase'] {
  return nodeReportSchema.shape.phase.parse(text)
}

/** The columns that a node's own report decides. */
export function reportColumns(report: NodeReport) {
  return {
    phase: report.phase,
    epoch: report.epoch,
    threshold: report.threshold,
    guardians: canonicalJson(report.guardians),
    report: canonicalJson(report),
  }
}

/** No guardian releases to this node any more, as soon as it has the next freeze list. */
export async function freezeNode(
  work: Work,
  clock: Clock,
  node: string,
  reason: string,
  by: string,
): Promise<void> {
  await nodeRow(work, node)
  const freeze = canonicalJson({ reason, since: clock.now() })
  await work.updateTable('nodes').set({ frozen: 1, freeze }).where('node', '=', node).execute()
  const data = { reason }
  await record(work, clock, {
    actor: by,
    action: 'node.freeze',
    subject: node,
    outcome: 'done',
    data,
  })
}

export async function unfreezeNode(
  work: Work,
  clock: Clock,
  node: string,
  by: string,
): Promise<void> {
  await nodeRow(work, node)
  await work
    .updateTable('nodes')
    .set({ frozen: 0, freeze: null })
    .where('node', '=', node)
    .execute()
  await record(work, clock, {
    actor: by,
    action: 'node.unfreeze',
    subject: node,
    outcome: 'done',
  })
}

export interface Frozen {
  node: string
  reason: string
  since: number
}

/**
 * Everybody who is frozen, why and since when; and whoever was removed while guardians still have keys
 * of it, because the removal of a stolen node must not be the moment in which it is released to.
 */
export async function frozenNodes(database: Database | Work): Promise<Frozen[]> {
  const gone = await database
    .selectFrom('ward_keys')
    .select('ward')
    .distinct()
    .where('state', '=', 'retiring')
    .where(({ not, exists, selectFrom }) =>
      not(exists(selectFrom('nodes').select('node').whereRef('nodes.node', '=', 'ward_keys.ward'))),
    )
    .execute()
  const removed = gone.map(({ ward }) => ({ node: ward, reason: 'it was removed', since: 0 }))
  return [...(await listedFrozen(database)), ...removed].sort((a, b) => (a.node < b.node ? -1 : 1))
}

async function listedFrozen(database: Database | Work): Promise<Frozen[]> {
  const rows = await database
    .selectFrom('nodes')
    .select(['node', 'freeze'])
    .where('frozen', '=', 1)
    .orderBy('node')
    .execute()
  return rows.map(({ node, freeze }) => {
    const told = freeze === null ? undefined : freezeSchema.parse(parseJson(freeze, 'the freeze'))
    return { node, reason: told?.reason ?? '', since: told?.since ?? 0 }
  })
}

/**
 * Forgets a node that has left or is lost, or that is frozen: one that lies does not leave when it is
 * told to. Its certificate is worth nothing from then on, because only nodes with a record are let in.
 * @throws Fault node.still_here, node.guards_others
 */
export async function removeNode(
  work: Work,
  clock: Clock,
  node: string,
  liveness: Liveness,
  by: string,
): Promise<void> {
  const row = await nodeRow(work, node)
  const ended = row.phase === 'left' || row.phase === 'wiped'
  if (isConnected(row, liveness) && !ended && row.frozen === 0) {
    throw nodeFault('node.still_here', `${row.name} is connected and ${row.phase}`, {
      hint: `let it leave first: holdfast node leave ${row.name} --confirm ${row.name}; one that does not obey is frozen first: holdfast node freeze ${row.name} --reason TEXT`,
    })
  }
  const wards = await wardsInNeed(work, node, liveness)
  if (wards.length > 0) {
    const text = `${row.name} is a guardian of ${wards.length} nodes that could not open without its share`
    throw nodeFault('node.guards_others', text, {
      hint: 'wait until they have moved to other guardians, or bring theirs back: holdfast node list',
      details: { wards },
    })
  }
  await deleteNode(work, node)
  await record(work, clock, {
    actor: by,
    action: 'node.remove',
    subject: node,
    outcome: 'done',
    data: { name: row.name, phase: row.phase },
  })
}

/**
 * Wards of a node that have fewer living guardians than their threshold without it. Who leaves is not
 * moved any more, and may itself be waiting for the keys of a lost one.
 */
async function wardsInNeed(work: Work, node: string, liveness: Liveness): Promise<string[]> {
  const wards = await work
    .selectFrom('nodes')
    .select(['node', 'guardians', 'threshold'])
    .where('node', 'in', ['', ...(await wardsOf(work, node))])
    .orderBy('name')
    .execute()
  const guardians = [...new Set(wards.flatMap(guardiansOf))]
  const rows = await work
    .selectFrom('nodes')
    .select(['node', 'instance', 'heard_at'])
    .where('node', 'in', ['', ...guardians])
    .where('frozen', '=', 0)
    .where('phase', 'in', ['open', 'locked'])
    .execute()
  const living = new Set(
    rows.filter((each) => isConnected(each, liveness)).map((each) => each.node),
  )
  living.delete(node)
  const leaving = await leavingNodes(work)
  return wards
    .filter((ward) => !leaving.has(ward.node))
    .filter((ward) => guardiansOf(ward).filter((id) => living.has(id)).length < ward.threshold)
    .map((ward) => ward.node)
}

async function leavingNodes(work: Work): Promise<Set<string>> {
  const rows = await work
    .selectFrom('commands')
    .select('node')
    .where('command', '=', 'leave')
    .where('state', 'in', ['preparing', 'waiting', 'sent', 'running'])
    .execute()
  return new Set(rows.map((row) => row.node))
}

/** Removes the record with all that belongs to it. */
export async function deleteNode(work: Work, node: string): Promise<void> {
  await endKeys(work, node)
  await releaseAddress(work, node)
  await work.deleteFrom('documents').where('name', '=', `peers:${node}`).execute()
  await work.deleteFrom('nodes').where('node', '=', node).execute()
}
