import { newestVersion } from './nodes-documents.ts'
import type { Work } from './store.ts'

/**
 * The number under which a command for this node is signed. A node refuses what is not above all that
 * it has forgotten, so the number rises, and like the versions of documents it is never below the time
 * in milliseconds: a store that was restored from a backup knows only numbers of long ago. It is drawn
 * when the node may be told, not when somebody asked: an approval may take a day.
 */
export async function nextIssue(work: Work, node: string, now: number): Promise<number> {
  const { newest } = await work
    .selectFrom('commands')
    .select(({ fn }) => fn.max('issue').as('newest'))
    .where('node', '=', node)
    .executeTakeFirstOrThrow()
  return Math.max(now, Number(newest ?? 0) + 1, (await newestVersion(work)) + 1)
}
