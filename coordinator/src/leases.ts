import { type AddressPool, addressAt, hostOf, lowestFree } from '@holdfast/link'
import { nodeFault } from './nodes-faults.ts'
import type { Database, Work } from './store.ts'

// Leases of tunnel addresses. A node has one; it is reserved for a while when an enrolment begins and
// kept once the node is in. An address is not an identity: a node is its key, so a used address may
// go to another node at once.

/** The end of a lease that has none: the last moment of a Date. */
export const forever = 8_640_000_000_000_000

/**
 * Reserves the lowest free address for a node until a moment; the same node gets the same address
 * again. @throws Fault enrolment.pool_full
 */
export async function reserveAddress(
  work: Work,
  pool: AddressPool,
  node: string,
  now: number,
  until: number,
): Promise<string> {
  await work.deleteFrom('leases').where('until', '<=', now).execute()
  const leases = await work.selectFrom('leases').select(['address', 'node']).execute()
  const own = leases.find((lease) => lease.node === node)
  if (own !== undefined && hostOf(pool, own.address) !== undefined) {
    await work
      .updateTable('leases')
      .set({ until })
      .where('node', '=', node)
      .where('until', '<', until)
      .execute()
    return own.address
  }
  const taken = new Set<number>()
  for (const { address } of leases) {
    const host = hostOf(pool, address)
    if (host !== undefined) taken.add(host)
  }
  const host = lowestFree(pool, taken)
  if (host === undefined) {
    throw nodeFault('enrolment.pool_full', 'every address of the tunnel pool is leased', {
      hint: 'remove nodes that are gone, or give a larger pool in the manifest: network.pool',
    })
  }
  if (own !== undefined) await releaseAddress(work, node)
  const address = addressAt(pool, host)
  await work.insertInto('leases').values({ address, node, until }).execute()
  return address
}

/** The node is in: it keeps its address. */
export async function keepAddress(work: Work, node: string): Promise<void> {
  await work.updateTable('leases').set({ until: forever }).where('node', '=', node).execute()
}

/** The address is free for somebody else. */
export async function releaseAddress(work: Work, node: string): Promise<void> {
  await work.deleteFrom('leases').where('node', '=', node).execute()
}

/** The tunnel addresses of these nodes. */
export async function addressesOf(
  database: Database | Work,
  nodes: readonly string[],
): Promise<Map<string, string>> {
  if (nodes.length === 0) return new Map()
  const rows = await database
    .selectFrom('leases')
    .select(['address', 'node'])
    .where('node', 'in', nodes)
    .execute()
  return new Map(rows.flatMap(({ node, address }) => (node === null ? [] : [[node, address]])))
}
