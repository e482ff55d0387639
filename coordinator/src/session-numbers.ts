import type { Database, Work } from './store.ts'

// Every session of a node has a number that the store gives when it begins, and a later session has a
// higher one, at whichever instance: an agent that has moved on is still believed to be there by the
// instance that it came from. Only the session with the highest number decides anything about the node.

/**
 * Draws the number of a session that begins at an instance, which holds the node from then on; undefined
 * when there is no record of the node. Never below the time in milliseconds: a record that was made anew,
 * or put back, knows nothing of the numbers before it.
 */
export async function drawSession(
  work: Work,
  node: string,
  { instance, now }: { instance: string; now: number },
): Promise<number | undefined> {
  const row = await work
    .selectFrom('nodes')
    .select('session')
    .where('node', '=', node)
    .executeTakeFirst()
  if (row === undefined) return undefined
  const session = Math.max(row.session + 1, now)
  await work
    .updateTable('nodes')
    .set({ session, instance, heard_at: now })
    .where('node', '=', node)
    .execute()
  return session
}

/** The numbers of these nodes' latest sessions. */
export async function latestSessions(
  database: Database | Work,
  nodes: readonly string[],
): Promise<Map<string, number>> {
  const rows = await database
    .selectFrom('nodes')
    .select(['node', 'session'])
    .where('node', 'in', ['', ...nodes])
    .execute()
  return new Map(rows.map(({ node, session }) => [node, session]))
}
