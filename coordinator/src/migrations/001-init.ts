import { type Kysely, sql } from 'kysely'

/** A column list, `name type [null]`, in the types both engines know. */
type Columns = readonly (readonly [
  name: string,
  type: 'text' | 'number' | 'bytes',
  nullable?: 'null',
])[]

const tables: Readonly<
  Record<string, { key: readonly string[]; unique?: readonly string[]; columns: Columns }>
> = {
  header: {
    key: ['id'],
    columns: [
      ['id', 'number'],
      ['body', 'text'],
      ['signature', 'text'],
      ['digest', 'text'],
      ['version', 'number'],
    ],
  },
  ways: {
    key: ['id'],
    columns: [
      ['id', 'text'],
      ['kind', 'text'],
      ['label', 'text'],
      ['sealed', 'text'],
      ['generation', 'number'],
      ['state', 'text'],
      ['created', 'number'],
      ['proven_at', 'number', 'null'],
    ],
  },
  secrets: {
    key: ['name'],
    columns: [
      ['name', 'text'],
      ['generation', 'number'],
      ['value', 'bytes'],
    ],
  },
  manifests: {
    key: ['version'],
    columns: [
      ['version', 'number'],
      ['digest', 'text'],
      ['body', 'text'],
      ['at', 'number'],
      ['by', 'text'],
      ['approved_by', 'text'],
    ],
  },
  holders: {
    key: ['name'],
    columns: [
      ['name', 'text'],
      ['kid', 'text'],
      ['key', 'text'],
      ['proven_at', 'number', 'null'],
    ],
  },
  ceremonies: {
    key: ['id'],
    columns: [
      ['id', 'text'],
      ['kind', 'text'],
      ['state', 'text'],
      ['digest', 'text'],
      ['nonce', 'text'],
      ['generation', 'number'],
      ['threshold', 'number'],
      ['detail', 'text'],
      ['created', 'number'],
      ['expires', 'number'],
    ],
  },
  answers: {
    key: ['ceremony', 'holder'],
    columns: [
      ['ceremony', 'text'],
      ['holder', 'text'],
      ['at', 'number'],
      ['code', 'text'],
      ['sealed', 'text'],
    ],
  },
  users: {
    key: ['name'],
    columns: [
      ['name', 'text'],
      ['password', 'text', 'null'],
      ['roles', 'text'],
      ['failures', 'number'],
      ['locked_until', 'number'],
    ],
  },
  sessions: {
    key: ['hash'],
    columns: [
      ['hash', 'text'],
      ['user', 'text'],
      ['csrf', 'text'],
      ['expires', 'number'],
    ],
  },
  tokens: {
    key: ['id'],
    unique: ['hash'],
    columns: [
      ['id', 'text'],
      ['hash', 'text'],
      ['user', 'text'],
      ['label', 'text'],
      ['scopes', 'text'],
      ['expires', 'number'],
      ['last_used', 'number', 'null'],
    ],
  },
  audit: {
    key: ['sequence'],
    columns: [
      ['sequence', 'number'],
      ['at', 'number'],
      ['actor', 'text'],
      ['action', 'text'],
      ['subject', 'text'],
      ['outcome', 'text'],
      ['data', 'text'],
      ['previous', 'text'],
      ['hash', 'text'],
    ],
  },
  nodes: {
    key: ['node'],
    unique: ['name'],
    columns: [
      ['node', 'text'],
      ['name', 'text'],
      ['address', 'text'],
      ['domain', 'text', 'null'],
      ['identity', 'text'],
      ['exchange', 'text'],
      ['wireguard', 'text'],
      ['certificate', 'text'],
      ['phase', 'text'],
      ['epoch', 'number'],
      ['threshold', 'number'],
      ['guardians', 'text'],
      ['frozen', 'number'],
      ['freeze', 'text', 'null'],
      ['ports', 'text'],
      ['heard_at', 'number', 'null'],
      ['instance', 'text', 'null'],
      ['report', 'text', 'null'],
      ['witnessed', 'number'],
    ],
  },
  invites: {
    key: ['id'],
    unique: ['hash'],
    columns: [
      ['id', 'text'],
      ['hash', 'text'],
      ['label', 'text'],
      ['expires', 'number'],
      ['uses', 'number'],
      ['used', 'number'],
      ['domain', 'text', 'null'],
      ['created_by', 'text'],
      ['revoked', 'number'],
    ],
  },
  enrolments: {
    key: ['id'],
    columns: [
      ['id', 'text'],
      ['invite', 'text'],
      ['node', 'text', 'null'],
      ['address', 'text'],
      ['name', 'text'],
      ['state', 'text'],
      ['code', 'text', 'null'],
      ['message', 'text', 'null'],
      ['created', 'number'],
      ['expires', 'number'],
      ['genesis', 'number'],
      ['by', 'text'],
    ],
  },
  leases: {
    key: ['address'],
    columns: [
      ['address', 'text'],
      ['node', 'text', 'null'],
      ['until', 'number'],
    ],
  },
  commands: {
    key: ['id'],
    columns: [
      ['id', 'text'],
      ['node', 'text'],
      ['command', 'text'],
      ['arguments', 'text'],
      ['by', 'text'],
      ['approved_by', 'text', 'null'],
      ['state', 'text'],
      ['created', 'number'],
      ['expires', 'number'],
      ['finished', 'number', 'null'],
      ['progress', 'text', 'null'],
      ['output', 'text', 'null'],
      ['result', 'text', 'null'],
      ['code', 'text', 'null'],
      ['message', 'text', 'null'],
    ],
  },
  documents: {
    key: ['name'],
    columns: [
      ['name', 'text'],
      ['version', 'number'],
      ['body', 'text'],
      ['signature', 'text'],
    ],
  },
  ward_keys: {
    key: ['ward', 'epoch', 'guardian'],
    columns: [
      ['ward', 'text'],
      ['epoch', 'number'],
      ['guardian', 'text'],
      ['key', 'text'],
      ['signature', 'text'],
      ['state', 'text'],
    ],
  },
}

const indexes: readonly (readonly [name: string, table: string, columns: readonly string[]])[] = [
  ['ceremonies_by_state', 'ceremonies', ['state']],
  ['commands_by_node', 'commands', ['node', 'created']],
  ['commands_by_state', 'commands', ['state', 'expires']],
  ['documents_by_version', 'documents', ['version']],
  ['enrolments_by_node', 'enrolments', ['node']],
  ['enrolments_by_state', 'enrolments', ['state']],
  ['leases_by_node', 'leases', ['node']],
]

/** The first schema. `bytes` is the engine's own type for them. */
export async function init(database: Kysely<unknown>, bytes: 'blob' | 'bytea'): Promise<void> {
  const types = { text: 'text', number: 'bigint', bytes } as const
  for (const [name, { key, unique, columns }] of Object.entries(tables)) {
    let table = database.schema.createTable(name)
    for (const [column, type, nullable] of columns) {
      table = table.addColumn(column, sql.raw(types[type]), (built) =>
        nullable === undefined ? built.notNull() : built,
      )
    }
    table = table.addPrimaryKeyConstraint(`${name}_key`, [...key] as never) // names are data here, not literals
    if (unique !== undefined)
      table = table.addUniqueConstraint(`${name}_unique`, [...unique] as never) // likewise
    await table.execute()
  }
  for (const [name, table, columns] of indexes) {
    await database.schema
      .createIndex(name)
      .on(table)
      .columns([...columns])
      .execute()
  }
}
