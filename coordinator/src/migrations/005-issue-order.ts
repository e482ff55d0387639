import type { Kysely } from 'kysely'

/** Numbers of commands are drawn from one sequence, and what is above one of them is asked for. */
export async function issueOrder(database: Kysely<unknown>): Promise<void> {
  await database.schema.createIndex('commands_by_issue').on('commands').columns(['issue']).execute()
}
