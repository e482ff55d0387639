import { join } from 'node:path'
import { isFault, messageOf } from '@holdfast/base'
import { open, type Policy } from '@holdfast/seal'
import type { Selectable } from 'kysely'
import { record } from './audit.ts'
import type { CeremonyDeps } from './ceremonies.ts'
import { hostKeyFile } from './claim.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import { ensureKeyFile } from './file-pin.ts'
import { requireCurrent } from './generation.ts'
import { holderMargin, holderStates } from './holders.ts'
import type { Database, Work } from './store.ts'
import type { WayTable } from './tables.ts'
import { readKey, removeWay, type WayKind } from './ways.ts'

// Adding, proving and removing ways to the data key, and changing the key itself. A way is stored
// only after it gave the key back; what has not been proven is never counted.

export interface WayView {
  id: string
  kind: WayKind
  label: string
  generation: number
  state: 'active' | 'prepared' | 'retired'
  provenAt?: number
}

/** Every way to the sealed state, the oldest first. */
export async function listWays(coordinator: Coordinator): Promise<WayView[]> {
  const rows = await coordinator.store.read
    .selectFrom('ways')
    .selectAll()
    .orderBy('created')
    .orderBy('label')
    .orderBy('id')
    .execute()
  return rows.map(viewOf)
}

/**
 * Adds an automatic way and proves it.
 * @param config of the seal part's pin; empty for host-key
 * @throws Fault coordinator.way_unproven, .not_in_this_state, seal.* when it cannot be made
 */
export async function addWay(
  coordinator: Coordinator,
  kind: Exclude<WayKind, 'holders'>,
  config: Record<string, unknown>,
  actor: string,
): Promise<WayView> {
  const { row, digest } = await coordinator.makeWay(
    kind,
    await policyFor(coordinator, kind, config),
  )
  await coordinator.store.write(async (work) => {
    await requireCurrent(work, digest)
    // The next generation is prepared already, and would come without it.
    if (await isChangingHolders(work)) throw changingHolders()
    await work.insertInto('ways').values(row).execute()
    const data = { kind, label: row.label }
    await record(work, coordinator.clock, {
      actor,
      action: 'way.add',
      subject: row.id,
      outcome: 'done',
      data,
    })
  })
  return viewOf({ ...row, proven_at: row.proven_at ?? null })
}

async function policyFor(
  coordinator: Coordinator,
  kind: Exclude<WayKind, 'holders'>,
  config: Record<string, unknown>,
): Promise<Policy> {
  if (kind !== 'host-key') return { kind: 'pin', pin: kind, config }
  if (Object.keys(config).length > 0)
    throw coordinatorFault('coordinator.way_unproven', 'host-key takes no configuration')
  const name = join(coordinator.directory, hostKeyFile)
  await ensureKeyFile(name)
  return { kind: 'pin', pin: 'file', config: { name } }
}

/** Opens one automatic way, compares, forgets. @throws Fault coordinator.way_unproven */
export async function proveWay(
  coordinator: Coordinator,
  id: string,
  actor: string,
): Promise<WayView> {
  const { store, clock, pins, header, headerDigest } = coordinator
  const row = await wayRow(coordinator, id)
  if (row.kind === 'holders') throw ofHolders()
  const outcome = await attempt(async () => {
    using plaintext = await open(pins, row.sealed)
    const { cluster = '', generation = 0 } = header ?? {}
    using _key = readKey(plaintext, { cluster, generation, headerDigest: headerDigest ?? '' })
  })
  const provenAt = clock.now()
  await store.write(async (work) => {
    if (outcome === undefined)
      await work.updateTable('ways').set({ proven_at: provenAt }).where('id', '=', id).execute()
    await record(work, clock, {
      actor,
      action: 'way.prove',
      subject: id,
      outcome: outcome === undefined ? 'done' : 'failed',
      data: outcome === undefined ? {} : { code: outcome },
    })
  })
  if (outcome === undefined) return viewOf({ ...row, proven_at: provenAt })
  throw coordinatorFault(
    'coordinator.way_unproven',
    `the way ${row.label} did not give the key back: ${outcome}`,
    { hint: 'repair what it needs, or remove it: holdfast coordinator ways remove' },
  )
}

async function attempt(task: () => Promise<void>): Promise<string | undefined> {
  try {
    await task()
    return undefined
  } catch (error) {
    return isFault(error) ? error.code : messageOf(error)
  }
}

/** @throws Fault coordinator.way_unknown, .last_way, .way_of_holders */
export async function dropWay(coordinator: Coordinator, id: string, actor: string): Promise<void> {
  const { store, clock } = coordinator
  const row = await wayRow(coordinator, id)
  if (row.kind === 'holders') throw ofHolders()
  await store.write(async (work) => {
    await removeWay(work, id)
    await removePrepared(work, row)
    const data = { kind: row.kind, label: row.label }
    await record(work, clock, { actor, action: 'way.remove', subject: id, outcome: 'done', data })
  })
}

/** The next generation may be prepared already: what is removed must not come back with it. */
async function removePrepared(work: Work, { kind, label }: Selectable<WayTable>): Promise<void> {
  const twin = await work
    .selectFrom('ways')
    .select('id')
    .where('state', '=', 'prepared')
    .where('kind', '=', kind)
    .where('label', '=', label)
    .limit(1)
    .executeTakeFirst()
  if (twin !== undefined) await work.deleteFrom('ways').where('id', '=', twin.id).execute()
}

/**
 * Makes a new data key at once, for the same ways and holders. The new shares are for keys that have
 * lately been proven: a rotation must never leave shares that nobody can use.
 * @throws Fault coordinator.way_unproven, coordinator.not_in_this_state
 */
export async function rotateDataKey(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  actor: string,
): Promise<number> {
  const { header, store, clock } = coordinator
  if (await isChangingHolders(deps.store.read)) throw changingHolders()
  if (header?.holders !== undefined) {
    const { threshold } = header.holders
    const { alarm } = holderMargin(await holderStates(store, header), threshold, clock.now())
    if (alarm !== undefined)
      throw coordinatorFault('coordinator.way_unproven', alarm, {
        hint: 'let the holders prove their keys first: holdfast holder prove',
      })
  }
  const { digest } = await coordinator.prepareGeneration(header?.holders)
  return await coordinator.activateGeneration(digest, async (work) => {
    await record(work, clock, {
      actor,
      action: 'data-key.rotate',
      subject: digest,
      outcome: 'done',
      data: { from: header?.generation },
    })
  })
}

async function isChangingHolders(database: Database | Work): Promise<boolean> {
  const row = await database
    .selectFrom('ceremonies')
    .select('id')
    .where('kind', '=', 'holders')
    .where('state', 'in', ['open', 'met'])
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

function changingHolders(): Error {
  return coordinatorFault(
    'coordinator.not_in_this_state',
    'the holders are being changed, which makes a new data key as well',
    { hint: 'finish or cancel that ceremony first: holdfast coordinator status' },
  )
}

async function wayRow({ store }: Coordinator, id: string): Promise<Selectable<WayTable>> {
  const row = await store.read
    .selectFrom('ways')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()
  if (row !== undefined) return row
  throw coordinatorFault('coordinator.way_unknown', `there is no way ${id}`, {
    hint: 'holdfast coordinator ways list',
  })
}

function viewOf(row: Omit<Selectable<WayTable>, 'sealed'>): WayView {
  return {
    id: row.id,
    kind: row.kind as WayKind, // written from these types alone, like the state
    label: row.label,
    generation: row.generation,
    state: row.state as WayView['state'],
    ...(row.proven_at === null ? {} : { provenAt: row.proven_at }),
  }
}

function ofHolders(): Error {
  return coordinatorFault(
    'coordinator.way_of_holders',
    'the way of the holders is changed through the manifest and proven by each holder',
    { hint: 'holdfast manifest set FILE, or holdfast holder prove NAME' },
  )
}
