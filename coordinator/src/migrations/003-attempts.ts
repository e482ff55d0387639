import { type Kysely, sql } from 'kysely'

/**
 * Failed logins are counted apart from users, so that names that do not exist lock like those that
 * do; and how far each sink of the audit log has come.
 */
export async function attempts(database: Kysely<unknown>): Promise<void> {
  const number = sql.raw<unknown>('bigint')
  await database.schema
    .createTable('attempts')
    .addColumn('name', 'text', (column) => column.notNull().primaryKey())
    .addColumn('count', number, (column) => column.notNull())
    .addColumn('since', number, (column) => column.notNull())
    .addColumn('until', number, (column) => column.notNull())
    .execute()
  await database.schema
    .createTable('sinks')
    .addColumn('name', 'text', (column) => column.notNull().primaryKey())
    .addColumn('position', number, (column) => column.notNull())
    .execute()
  for (const column of ['failures', 'locked_until'])
    await database.schema.alterTable('users').dropColumn(column).execute()
}
