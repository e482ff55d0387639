import { createPublicKey } from 'node:crypto'
import { type Clock, canonicalJson, isObject, messageOf, parseJson } from '@holdfast/base'
import { bareJwk, parseEcPublicJwk } from '@holdfast/crypto'
import { isSigned, type Report, type Errand as Unsigned } from '@holdfast/link'
import { boundGuardianSchema } from '@holdfast/protocol/frames'
import { z } from 'zod'
import { record } from './audit.ts'
import type { Database, Work } from './store.ts'

// The rows of `ward_keys` and `reshares` as errands: what is to be said to whom, and what an answer
// changes.

export type WardKey = Extract<Report, { kind: 'ward-key' }>

export interface Errand {
  node: string
  frame: Unsigned
}

/** Everything that the agents of one instance have to be told or to answer. */
export async function openErrands(database: Database, instance: string): Promise<Errand[]> {
  const keys = await database
    .selectFrom('ward_keys')
    .innerJoin('nodes', 'nodes.node', 'ward_keys.guardian')
    .select(['ward_keys.ward', 'ward_keys.guardian', 'ward_keys.epoch', 'ward_keys.identity'])
    .select(['ward_keys.state', 'ward_keys.errand'])
    .where('ward_keys.state', 'in', ['asked', 'retiring'])
    .where('nodes.instance', '=', instance)
    .orderBy('ward_keys.epoch')
    .orderBy('ward_keys.ward')
    .execute()
  const orders = await database
    .selectFrom('reshares')
    .innerJoin('nodes', 'nodes.node', 'reshares.ward')
    .select(['reshares.id', 'reshares.ward', 'reshares.epoch', 'reshares.threshold'])
    .select('reshares.order')
    .where('reshares.state', '=', 'ordered')
    .where('nodes.instance', '=', instance)
    .orderBy('reshares.created')
    .orderBy('reshares.ward')
    .execute()
  return [...keys.map(wardErrand), ...orders.map(reshareErrand)]
}

function wardErrand(row: {
  ward: string
  guardian: string
  epoch: number
  identity: string
  state: string
  errand: string
}): Errand {
  const { ward, guardian, epoch, identity, errand: id } = row
  const action = row.state === 'asked' ? 'prepare' : 'retire'
  return { node: guardian, frame: { kind: 'ward', action, ward, identity, epoch, id } }
}

function reshareErrand(row: {
  id: string
  ward: string
  epoch: number
  threshold: number
  order: string | null
}): Errand {
  const { id, ward, epoch, threshold } = row
  const guardians = z.array(boundGuardianSchema).parse(parseJson(row.order ?? '[]', 'the order'))
  return { node: ward, frame: { kind: 'reshare', id, epoch, threshold, guardians } }
}

interface Asked {
  /** The guardian's public identity key, PEM. */
  identity: string
}

/** Who was asked for this key; undefined when nobody was, or when it was long ago. */
export async function askedOf(
  database: Database,
  guardian: string,
  { ward, epoch }: WardKey,
): Promise<Asked | undefined> {
  return await database
    .selectFrom('ward_keys')
    .innerJoin('nodes', 'nodes.node', 'ward_keys.guardian')
    .select('nodes.identity')
    .where('ward_keys.guardian', '=', guardian)
    .where('ward_keys.ward', '=', ward)
    .where('ward_keys.epoch', '=', epoch)
    .where('ward_keys.state', 'in', ['asked', 'made'])
    .executeTakeFirst()
}

/** What is wrong with a key, if anything is: its form, or the guardian's signature. */
export function problemOf(
  identity: string,
  cluster: string,
  guardian: string,
  { ward, epoch, key, signature }: WardKey,
): string | undefined {
  try {
    const bare = bareJwk(parseEcPublicJwk(key, 'the key'))
    if (canonicalJson({ ...bare }) !== canonicalJson(key)) return 'it is more than a public key'
  } catch (error) {
    return messageOf(error)
  }
  if (!isObject(key)) return 'it is no key'
  const body = { cluster, guardian, ward, epoch, key }
  if (isSigned(createPublicKey(identity), 'ward-key', body, signature)) return undefined
  return 'the guardian has not signed it'
}

/** Until the ward has been told, the last key that the guardian gave counts. */
export async function keepKey(work: Work, guardian: string, frame: WardKey): Promise<void> {
  const { ward, epoch, key, signature } = frame
  const preparing = await work
    .selectFrom('reshares')
    .select('id')
    .where('ward', '=', ward)
    .where('epoch', '=', epoch)
    .where('state', '=', 'preparing')
    .executeTakeFirst()
  if (preparing === undefined) return
  await work
    .updateTable('ward_keys')
    .set({ state: 'made', key: canonicalJson(key), signature })
    .where('ward', '=', ward)
    .where('epoch', '=', epoch)
    .where('guardian', '=', guardian)
    .where('state', 'in', ['asked', 'made'])
    .execute()
}

interface Refusal {
  ward: string
  epoch: number
  guardian: string
  code: string
  text: string
}

/** A guardian gives no key, or a wrong one. */
export async function refuse(work: Work, clock: Clock, refusal: Refusal): Promise<void> {
  const { ward, epoch, guardian, code, text } = refusal
  const { numUpdatedRows } = await work
    .updateTable('ward_keys')
    .set({ state: 'refused', code })
    .where('ward', '=', ward)
    .where('epoch', '=', epoch)
    .where('guardian', '=', guardian)
    .where('state', '=', 'asked')
    .executeTakeFirst()
  // Said once: a node that says it again and again must not fill the log.
  if (numUpdatedRows === 0n) return
  await record(work, clock, {
    actor: `node:${guardian}`,
    action: 'reshare.key_refused',
    subject: ward,
    outcome: 'failed',
    data: { epoch, code, text: text.slice(0, 500) },
  })
}

/** The guardian has destroyed it. */
export async function forgetKey(work: Work, errand: string): Promise<void> {
  await work
    .deleteFrom('ward_keys')
    .where('errand', '=', errand)
    .where('state', '=', 'retiring')
    .execute()
}

/** A ward does not move to its new guardians; what it says about it is kept. */
export async function refuseOrder(
  work: Work,
  clock: Clock,
  { id, ward, epoch }: { id: string; ward: string; epoch: number },
  { code, text }: { code: string; text: string },
): Promise<void> {
  const message = text.slice(0, 500)
  const { numUpdatedRows } = await work
    .updateTable('reshares')
    .set({ code, message })
    .where('id', '=', id)
    .where('state', '=', 'ordered')
    .where('code', 'is', null)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) return // as above
  await record(work, clock, {
    actor: `node:${ward}`,
    action: 'reshare.order_refused',
    subject: ward,
    outcome: 'failed',
    data: { epoch, code, text: message },
  })
}

/** The key that an answer of this guardian is about. */
export async function keyErrand(database: Database, guardian: string, errand: string) {
  return await database
    .selectFrom('ward_keys')
    .select(['ward', 'epoch', 'guardian', 'state'])
    .where('errand', '=', errand)
    .where('guardian', '=', guardian)
    .executeTakeFirst()
}

/** The re-share that an answer of this ward is about. */
export async function orderErrand(database: Database, ward: string, id: string) {
  return await database
    .selectFrom('reshares')
    .select(['id', 'ward', 'epoch'])
    .where('id', '=', id)
    .where('ward', '=', ward)
    .executeTakeFirst()
}
