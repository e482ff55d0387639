import { newestVersion } from './nodes-documents.ts'
import type { Database, Work } from './store.ts'

/**
 * The number under which a command is signed. A node refuses what is not above all that it has
 * forgotten, so the number rises, and like the versions of documents it is never below the time in
 * milliseconds: a store that was restored from a backup knows only numbers of long ago. It is drawn
 * when the node may be told, not when somebody asked: an approval may take a day.
 *
 * There is one sequence for the whole fleet, so that "what has been ordered since?" is one question.
 * Whoever draws a number has read the one before: a number is never seen before those below it are.
 */
export async function nextIssue(work: Work, now: number): Promise<number> {
  return Math.max(now, (await newestIssue(work)) + 1, (await newestVersion(work)) + 1)
}

/** The highest number of any command; 0 when there is none. */
export async function newestIssue(database: Database | Work): Promise<number> {
  const { newest } = await database
    .selectFrom('commands')
    .select(({ fn }) => fn.max('issue').as('newest'))
    .executeTakeFirstOrThrow()
  return Number(newest ?? 0)
}
