import { type KeyObject, sign, verify } from 'node:crypto'
import { canonicalJson, parseJsonObject } from '@holdfast/base'
import type { Database } from './store.ts'

/** The audit action by which an instance learns that the state it belonged to was given up. */
export const dismissalAction = 'coordinator.dismissed'

const text = (cluster: string, archive: string): Buffer =>
  Buffer.from(canonicalJson({ holdfast: 'dismissal', cluster, archive }), 'utf8')

/** Data of the audit entry: the archive's digest, signed by the identity key with the cluster's id. */
export function dismissalData(
  cluster: string,
  archive: string,
  identity: KeyObject,
): { cluster: string; archive: string; signature: string } {
  const signature = sign('sha256', text(cluster, archive), identity).toString('base64url')
  return { cluster, archive, signature }
}

/** Whether the store tells, signed by this identity, that the state of `cluster` was dismissed. */
export async function isDismissed(
  database: Database,
  identity: KeyObject,
  cluster: string,
): Promise<boolean> {
  const rows = await database
    .selectFrom('audit')
    .select('data')
    .where('action', '=', dismissalAction)
    .execute()
  return rows.some((row) => {
    const data = parseJsonObject(row.data, 'the entry')
    const { archive, signature } = data
    if (data.cluster !== cluster || typeof archive !== 'string') return false
    if (typeof signature !== 'string') return false
    return verify('sha256', text(cluster, archive), identity, Buffer.from(signature, 'base64url'))
  })
}
