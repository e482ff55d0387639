import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { EcPublicJwk } from '@holdfast/crypto'
import { ReleaseLog } from './release-log.ts'
import { WardKeys } from './ward-keys.ts'

// Started as a program by ward-keys-crash.test.ts, and killed after some effect: carries the orders of a
// coordinator out one after the other, as a guardian does, with their lines in the release log. One line
// for each of them that is done: what the guardian would tell the coordinator then.
//
//   node ward-keys-child.ts DIRECTORY ORDERS.json

export interface WardOrder {
  action: 'prepare' | 'retire'
  ward: string
  /** The ward's public identity key, PEM. */
  identity: string
  epoch: number
}

export interface Guarded {
  keys: WardKeys
  log: ReleaseLog
}

/** What a node that guards others begins with at every start. */
export async function openGuarded(directory: string): Promise<Guarded> {
  const keys = new WardKeys(directory)
  await keys.open()
  await keys.finishRetiring()
  const { log } = await ReleaseLog.open(join(directory, 'releases.log'), () => 0)
  return { keys, log }
}

/** One order; the key, if it was to be made. */
export async function carryOut({ keys, log }: Guarded, order: WardOrder) {
  const { action, ward, identity, epoch } = order
  const noted = { ward, epoch, source: 'coordinator', code: '' }
  if (action === 'retire') {
    await keys.retire(ward, epoch)
    await log.append({ ...noted, event: 'retired' })
    return undefined
  }
  const key: EcPublicJwk = await keys.prepare(ward, identity, epoch)
  await log.append({ ...noted, event: 'prepared' })
  return key
}

if (import.meta.main) {
  const [, , directory = '', file = ''] = process.argv
  const orders = JSON.parse(await readFile(file, 'utf8')) as WardOrder[] // the test wrote it
  const guarded = await openGuarded(directory)
  for (const order of orders) {
    const key = await carryOut(guarded, order)
    process.stdout.write(`${JSON.stringify(key ?? null)}\n`)
  }
}
