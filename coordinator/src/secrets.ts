import type { Secret } from '@holdfast/base'
import type { DataKey } from './data-key.ts'
import { coordinatorFault } from './faults.ts'
import type { Database, Work } from './store.ts'

/** The secrets that a running coordinator keeps. */
export type SecretName = 'authority-key' | 'command-key' | 'identity-key' | 'next-data-key'

const place = (cluster: string, name: string) => ({
  cluster,
  table: 'secrets',
  row: name,
  column: 'value',
})

/** Encrypts a secret under the data key, bound to its own row, and replaces what was there. */
export async function writeSecret(
  work: Work,
  key: DataKey,
  cluster: string,
  name: SecretName,
  value: Secret,
): Promise<void> {
  const row = { name, generation: key.generation, value: key.encrypt(value, place(cluster, name)) }
  await work
    .insertInto('secrets')
    .values(row)
    .onConflict((conflict) =>
      conflict.column('name').doUpdateSet({ generation: row.generation, value: row.value }),
    )
    .execute()
}

/** @throws Fault coordinator.row_unreadable */
export async function readSecret(
  database: Database | Work,
  key: DataKey,
  cluster: string,
  name: SecretName,
): Promise<Secret> {
  const row = await database
    .selectFrom('secrets')
    .selectAll()
    .where('name', '=', name)
    .executeTakeFirst()
  if (row === undefined)
    throw coordinatorFault('coordinator.row_unreadable', `the secret ${name} is not in the store`)
  return key.decrypt(row.value, place(cluster, name))
}

/** Encrypts every secret anew under the next generation's key; part of one transaction. */
export async function reencryptSecrets(
  work: Work,
  from: DataKey,
  to: DataKey,
  cluster: string,
): Promise<number> {
  const rows = await work.selectFrom('secrets').selectAll().execute()
  for (const row of rows) {
    using value = from.decrypt(row.value, place(cluster, row.name))
    const fresh = { generation: to.generation, value: to.encrypt(value, place(cluster, row.name)) }
    await work.updateTable('secrets').set(fresh).where('name', '=', row.name).execute()
  }
  return rows.length
}

/** Removes a secret; one that is not there is removed already. */
export async function removeSecret(work: Work, name: SecretName): Promise<void> {
  await work.deleteFrom('secrets').where('name', '=', name).execute()
}
