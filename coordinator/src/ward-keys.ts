import { parseJson } from '@holdfast/base'
import { z } from 'zod'
import type { Database, Work } from './store.ts'
import { newId } from './ways.ts'

// The keys that guardians have for their wards, as far as this coordinator has asked for them. A row
// says what the guardian is to do (`asked`, `retiring`) or has done (`made`, `refused`); once a key is
// destroyed its row goes. To retire an epoch destroys everything up to it at that guardian.

interface KeyName {
  ward: string
  epoch: number
  guardian: string
}

/** Asks for a key to be destroyed, under an id of its own. */
async function retireKey(work: Work, { ward, epoch, guardian }: KeyName): Promise<void> {
  await work
    .updateTable('ward_keys')
    .set({ state: 'retiring', errand: newId(), key: null, signature: null, code: null })
    .where('ward', '=', ward)
    .where('epoch', '=', epoch)
    .where('guardian', '=', guardian)
    .execute()
}

/** The ward has proven this epoch: what is older goes. */
export async function retireBefore(work: Work, ward: string, epoch: number): Promise<void> {
  for (const key of await keysOf(work, ward)) if (key.epoch < epoch) await retireKey(work, key)
}

/** The ward is not in the fleet any more: everything goes. */
export async function retireAll(work: Work, ward: string): Promise<void> {
  for (const key of await keysOf(work, ward)) await retireKey(work, key)
}

/**
 * The keys of an attempt of which the ward was never told: they go where the guardian has no other
 * key of that ward. Elsewhere they stay until a later epoch, because the one in use would go as well.
 */
export async function retireUnused(
  work: Work,
  { ward, epoch }: { ward: string; epoch: number },
): Promise<void> {
  const keys = await keysOf(work, ward)
  const others = new Set(keys.filter((key) => key.epoch !== epoch).map(({ guardian }) => guardian))
  for (const key of keys)
    if (key.epoch === epoch && !others.has(key.guardian)) await retireKey(work, key)
}

async function keysOf(work: Work, ward: string): Promise<KeyName[]> {
  return await work
    .selectFrom('ward_keys')
    .select(['ward', 'epoch', 'guardian'])
    .where('ward', '=', ward)
    .where('state', '!=', 'retiring')
    .execute()
}

/** Nodes that have ended and have keys, or of which others have keys that nobody destroys yet. */
export async function endedWithKeys(database: Database | Work): Promise<Set<string>> {
  const rows = await database
    .selectFrom('nodes')
    .select('nodes.node')
    .where('nodes.phase', 'in', ['left', 'wiped'])
    .where(({ or, exists, selectFrom }) => {
      const keys = selectFrom('ward_keys').select('ward_keys.ward')
      return or([
        exists(keys.whereRef('ward_keys.guardian', '=', 'nodes.node')),
        exists(
          keys
            .whereRef('ward_keys.ward', '=', 'nodes.node')
            .where('ward_keys.state', '!=', 'retiring'),
        ),
      ])
    })
    .execute()
  return new Set(rows.map(({ node }) => node))
}

/**
 * A node has left, was wiped or is removed: its guardians destroy their keys of it, also those that
 * an older or restored store does not know of, and what it had for others is forgotten.
 */
export async function endKeys(work: Work, node: string): Promise<void> {
  const row = await work
    .selectFrom('nodes')
    .select(['epoch', 'identity', 'guardians'])
    .where('node', '=', node)
    .executeTakeFirst()
  if (row !== undefined) await noteSet(work, { node, ...row })
  await work.updateTable('nodes').set({ guardians: '[]' }).where('node', '=', node).execute()
  await retireAll(work, node)
  await work.deleteFrom('ward_keys').where('guardian', '=', node).execute()
}

/** Makes sure that the keys of a ward's set in use have their rows. */
export async function noteSet(
  work: Work,
  ward: { node: string; epoch: number; identity: string; guardians: string },
): Promise<void> {
  const { node, epoch, identity } = ward
  const guardians = z.array(z.string()).parse(parseJson(ward.guardians, 'the guardians'))
  if (guardians.length === 0) return
  const rows = guardians.map((guardian) => ({
    ...{ ward: node, epoch, guardian, identity },
    ...{ state: 'made', errand: newId() },
  }))
  await work
    .insertInto('ward_keys')
    .values(rows)
    .onConflict((conflict) => conflict.columns(['ward', 'epoch', 'guardian']).doNothing())
    .execute()
}
