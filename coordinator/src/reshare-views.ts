import { parseJson } from '@holdfast/base'
import type { Manifest } from '@holdfast/protocol'
import { guardianThreshold, nodePhases } from '@holdfast/protocol'
import { z } from 'zod'
import { guardiansOf, isConnected, type Liveness } from './nodes.ts'
import type { NodeView, NodeViews } from './placement.ts'
import {
  type Cause,
  causes,
  type HeldKey,
  type History,
  type Reshare,
  type ReshareRules,
  reshareStates,
  type WardKeyState,
} from './reshare-plan.ts'
import type { Database, Work } from './store.ts'

// The store's rows as the decisions about re-shares take them. One look reads everything once.

const day = 24 * 60 * 60_000
/** Failures of so long ago do not count any more. */
const failuresKept = 6 * 60 * 60_000
/** For so long a guardian that a re-share failed for is taken only when there is nobody else. */
const blameKept = 15 * 60_000

/** The manifest's rules about guardians as the plan takes them. */
export function rulesOf({
  guardians,
  genesis,
}: Pick<Manifest, 'guardians' | 'genesis'>): ReshareRules {
  const { count, margin, refreshDays, lostMinutes } = guardians
  return {
    count,
    margin,
    threshold: guardianThreshold(guardians),
    genesisPeers: genesis.peers,
    refresh: refreshDays * day,
    lost: lostMinutes * 60_000,
  }
}

/** Every node as it stands, by name. */
export async function readViews(
  database: Database | Work,
  { pins, ...liveness }: Liveness & { pins: boolean },
): Promise<NodeViews> {
  const rows = await database
    .selectFrom('nodes')
    .select(['node', 'name', 'domain', 'phase', 'frozen', 'epoch', 'threshold', 'guardians'])
    .select(['instance', 'heard_at', 'genesis'])
    .orderBy('name')
    .execute()
  const going = await ordersToGo(database)
  // With pins of its own a new node formats at once and is guarded later.
  const waiting = pins ? new Set<string>() : await waitingNodes(database)
  const leavers = new Set([...going].flatMap(([node, kinds]) => (kinds.has('leave') ? node : [])))
  const shared = await wardsWithKeysAt(database, [...leavers])
  const phases = z.enum(nodePhases)
  return new Map(
    rows.map((row): [string, NodeView] => {
      const guardians = guardiansOf(row)
      const view: NodeView = {
        node: row.node,
        name: row.name,
        domain: row.domain ?? undefined,
        phase: phases.parse(row.phase),
        frozen: row.frozen !== 0,
        connected: isConnected(row, liveness),
        heardAt: row.heard_at ?? 0,
        epoch: row.epoch,
        threshold: row.threshold,
        guardians,
        waiting: row.phase === 'enrolling' && waiting.has(row.node),
        genesis: row.genesis !== 0,
        leaving: leavers.has(row.node),
        sharedWithLeaver: shared.has(row.node) || guardians.some((id) => leavers.has(id)),
        rebooting: going.get(row.node)?.has('reboot') === true,
      }
      return [row.node, view]
    }),
  )
}

async function ordersToGo(database: Database | Work): Promise<Map<string, Set<string>>> {
  const rows = await database
    .selectFrom('commands')
    .select(['node', 'command'])
    .where('state', 'in', ['preparing', 'waiting', 'sent', 'running'])
    .where('command', 'in', ['leave', 'reboot'])
    .execute()
  const going = new Map<string, Set<string>>()
  for (const { node, command } of rows) going.set(node, (going.get(node) ?? new Set()).add(command))
  return going
}

async function wardsWithKeysAt(
  database: Database | Work,
  guardians: readonly string[],
): Promise<Set<string>> {
  if (guardians.length === 0) return new Set()
  const rows = await database
    .selectFrom('ward_keys')
    .select('ward')
    .where('guardian', 'in', guardians)
    .where('state', '!=', 'retiring')
    .execute()
  return new Set(rows.map(({ ward }) => ward))
}

async function waitingNodes(database: Database | Work): Promise<Set<string>> {
  const rows = await database
    .selectFrom('enrolments')
    .select('node')
    .where('state', 'in', ['reserved', 'sent', 'formatting', 'proving'])
    .where('genesis', '=', 0)
    .execute()
  return new Set(rows.flatMap(({ node }) => node ?? []))
}

/** Re-shares that are under way, and failed ones that their wards have carried out all the same. */
export async function readReshares(database: Database | Work): Promise<Reshare[]> {
  const active = await database
    .selectFrom('reshares')
    .selectAll()
    .where('state', 'in', ['planned', 'preparing', 'ordered', 'retiring'])
    .orderBy('created')
    .orderBy('id')
    .execute()
  const late = await database
    .selectFrom('reshares')
    .innerJoin('nodes', 'nodes.node', 'reshares.ward')
    .selectAll('reshares')
    .where('reshares.state', '=', 'failed')
    .where('reshares.order', 'is not', null)
    .whereRef('nodes.epoch', '=', 'reshares.epoch')
    .orderBy('reshares.created')
    .orderBy('reshares.id')
    .execute()
  return [...active, ...late].map(reshareOf)
}

const idsSchema = z.array(z.string())

/** A row as the plan takes it. */
export function reshareOf(row: {
  id: string
  ward: string
  cause: string
  state: string
  epoch: number
  threshold: number
  guardians: string
  since: number
  code: string | null
  message: string | null
}): Reshare {
  const { id, ward, epoch, threshold, since, code, message } = row
  return {
    id,
    ward,
    epoch,
    threshold,
    since,
    cause: z.enum(causes).parse(row.cause) satisfies Cause,
    state: z.enum(reshareStates).parse(row.state),
    guardians: idsSchema.parse(parseJson(row.guardians, 'the guardians')),
    ...(code === null ? {} : { code }),
    ...(message === null ? {} : { message }),
  }
}

/** The keys of every ward with a re-share under way. */
export async function readKeys(database: Database | Work): Promise<Map<string, HeldKey[]>> {
  const rows = await database
    .selectFrom('ward_keys')
    .innerJoin('reshares', 'reshares.ward', 'ward_keys.ward')
    .select(['ward_keys.ward', 'ward_keys.guardian', 'ward_keys.epoch'])
    .select(['ward_keys.state', 'ward_keys.code'])
    .where('reshares.state', 'in', ['preparing', 'ordered', 'retiring'])
    .distinct()
    .orderBy('ward_keys.epoch')
    .orderBy('ward_keys.guardian')
    .execute()
  const keys = new Map<string, HeldKey[]>()
  for (const { ward, guardian, epoch, state, code } of rows) {
    const key = {
      guardian,
      epoch,
      state: state as WardKeyState, // only reshare-*.ts write the column
      code: code ?? undefined,
    }
    keys.set(ward, [...(keys.get(ward) ?? []), key])
  }
  return keys
}

/** When each ward's set in use was proven. */
export async function readProven(database: Database | Work): Promise<Map<string, number>> {
  const rows = await database
    .selectFrom('reshares')
    .select('ward')
    .select(({ fn }) => fn.max('since').as('at'))
    .where('state', '=', 'done')
    .groupBy('ward')
    .execute()
  return new Map(rows.map(({ ward, at }) => [ward, Number(at)]))
}

export type Failures = Map<string, Pick<History, 'failures' | 'failedAt'>>

/** Attempts that failed since the ward last moved. */
export async function readFailures(database: Database | Work, now: number): Promise<Failures> {
  const rows = await database
    .selectFrom('reshares')
    .innerJoin('nodes', 'nodes.node', 'reshares.ward')
    .select('reshares.ward')
    .select(({ fn }) => [fn.countAll().as('count'), fn.max('reshares.since').as('at')])
    .where('reshares.state', '=', 'failed')
    .where('reshares.since', '>', now - failuresKept)
    .whereRef('reshares.epoch', '>', 'nodes.epoch')
    .groupBy('reshares.ward')
    .execute()
  return new Map(
    rows.map(({ ward, count, at }) => [ward, { failures: Number(count), failedAt: Number(at) }]),
  )
}

/** Guardians that re-shares have failed for lately. */
export async function readBlamed(database: Database | Work, now: number): Promise<Set<string>> {
  const rows = await database
    .selectFrom('reshares')
    .select('blamed')
    .where('state', '=', 'failed')
    .where('since', '>', now - blameKept)
    .where('blamed', '!=', '[]')
    .execute()
  return new Set(rows.flatMap(({ blamed }) => idsSchema.parse(parseJson(blamed, 'the blamed'))))
}

/** The highest epoch that was ever used for each of these wards. */
export async function readEpochs(
  database: Database | Work,
  wards: readonly string[],
): Promise<Map<string, number>> {
  if (wards.length === 0) return new Map()
  const rows = await database
    .selectFrom('reshares')
    .select('ward')
    .select(({ fn }) => fn.max('epoch').as('epoch'))
    .where('ward', 'in', wards)
    .groupBy('ward')
    .execute()
  return new Map(rows.map(({ ward, epoch }) => [ward, Number(epoch)]))
}
