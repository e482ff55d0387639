import { type Kysely, sql } from 'kysely'

/** Commands get the number under which they are signed; those that are open keep their order. */
export async function issues(database: Kysely<unknown>): Promise<void> {
  await database.schema
    .alterTable('commands')
    .addColumn('issue', sql.raw<unknown>('bigint'), (column) => column.notNull().defaultTo(0))
    .execute()
  await sql`update commands set issue = created`.execute(database)
}
