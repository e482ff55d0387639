import { type Kysely, sql } from 'kysely'

const text = sql.raw('text')
const number = sql.raw('bigint')

/** Re-shares, every ward's keys with the errands for them, and who began without peers. */
export async function reshares(database: Kysely<unknown>): Promise<void> {
  const { schema } = database
  await schema
    .createTable('reshares')
    .addColumn('id', text, (column) => column.notNull())
    .addColumn('ward', text, (column) => column.notNull())
    .addColumn('cause', text, (column) => column.notNull())
    .addColumn('state', text, (column) => column.notNull())
    .addColumn('epoch', number, (column) => column.notNull())
    .addColumn('threshold', number, (column) => column.notNull())
    .addColumn('guardians', text, (column) => column.notNull())
    .addColumn('order', text)
    .addColumn('created', number, (column) => column.notNull())
    .addColumn('since', number, (column) => column.notNull())
    .addColumn('blamed', text, (column) => column.notNull())
    .addColumn('code', text)
    .addColumn('message', text)
    .addPrimaryKeyConstraint('reshares_key', ['id'] as never) // names are data here, not literals
    .execute()
  await schema.createIndex('reshares_by_state').on('reshares').columns(['state', 'since']).execute()
  await schema.createIndex('reshares_by_ward').on('reshares').columns(['ward', 'epoch']).execute()
  // Nothing has written keys before: no coordinator has given an order so far.
  await schema.dropTable('ward_keys').execute()
  await schema
    .createTable('ward_keys')
    .addColumn('ward', text, (column) => column.notNull())
    .addColumn('epoch', number, (column) => column.notNull())
    .addColumn('guardian', text, (column) => column.notNull())
    .addColumn('identity', text, (column) => column.notNull())
    .addColumn('state', text, (column) => column.notNull())
    .addColumn('errand', text, (column) => column.notNull())
    .addColumn('key', text)
    .addColumn('signature', text)
    .addColumn('code', text)
    .addPrimaryKeyConstraint('ward_keys_key', ['ward', 'epoch', 'guardian'] as never) // likewise
    .execute()
  await schema
    .createIndex('ward_keys_by_guardian')
    .on('ward_keys')
    .columns(['guardian', 'state'])
    .execute()
  await schema.createIndex('ward_keys_by_state').on('ward_keys').columns(['state']).execute()
  await schema.createIndex('ward_keys_by_errand').on('ward_keys').columns(['errand']).execute()
  await schema
    .alterTable('nodes')
    .addColumn('genesis', number, (column) => column.notNull().defaultTo(0))
    .execute()
  await sql`update nodes set genesis = 1
    where node in (select node from enrolments where genesis = 1)`.execute(database)
}
