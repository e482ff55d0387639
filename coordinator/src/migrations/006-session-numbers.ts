import { type Kysely, sql } from 'kysely'

/** Which of a node's sessions is the latest; those before this change are older than any number. */
export async function sessionNumbers(database: Kysely<unknown>): Promise<void> {
  await database.schema
    .alterTable('nodes')
    .addColumn('session', sql.raw<unknown>('bigint'), (column) => column.notNull().defaultTo(0))
    .execute()
}
