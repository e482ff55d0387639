import { join } from 'node:path'
import {
  canonicalJson,
  ensureDirectory,
  isFault,
  parseJson,
  readBounded,
  writeDurable,
} from '@holdfast/base'
import { z } from 'zod'
import { vaultFault } from './faults.ts'
import { digestOf } from './header-pack.ts'
import {
  type PanicJournal,
  panicDirectory,
  panicJournal,
  type Receipt,
  receiptNames,
  receiptSchema,
} from './panic-record.ts'

const receiptLimit = 4 * 1024 * 1024

/** Whether a volume is being wiped or is gone for good. */
export async function fateOf(
  state: string,
  uuid: string,
): Promise<'none' | 'wiping' | 'destroyed'> {
  const journal = await panicJournal(state, uuid).read()
  if (journal !== undefined && journal.level > 1) return 'wiping'
  const receipts = await readReceipts(state, uuid)
  return receipts.some(({ receipt }) => receipt.level === 3) ? 'destroyed' : 'none'
}

/** A receipt with the digest of its file. */
export interface StoredReceipt {
  path: string
  digest: string
  receipt: Receipt
}

/**
 * All receipts of a volume, oldest first, their chain checked.
 * @throws Fault vault.receipt_malformed for one that is altered, missing or out of order
 */
export async function readReceipts(state: string, uuid: string): Promise<StoredReceipt[]> {
  const receipts: StoredReceipt[] = []
  for (const name of await receiptNames(state, uuid)) {
    const path = join(panicDirectory(state, uuid), name)
    const bytes = await readBounded(path, receiptLimit)
    const receipt = parseReceipt(bytes, path)
    const last = receipts.at(-1)
    const linked = receipt.previous === (last?.digest ?? null)
    if (!linked || receipt.sequence !== receipts.length + 1 || receipt.uuid !== uuid) {
      throw malformed(path, 'it does not follow the one before it')
    }
    receipts.push({ path, digest: digestOf(bytes), receipt })
  }
  return receipts
}

/**
 * Writes the receipt of a finished wipe; a second call for the same wipe gives the first's. It is
 * linked to the last one as that file is, whole or not: readers judge the chain, a wipe goes on.
 */
export async function writeReceipt(
  state: string,
  journal: PanicJournal,
  finished: string,
): Promise<StoredReceipt> {
  const { id, uuid, device, level, plan, started, actor, done, survives, unreachable } = journal
  const last = await lastReceipt(state, uuid)
  if (last?.receipt?.id === id) return { ...last, receipt: last.receipt }
  const receipt: Receipt = {
    ...{ v: 1, id, sequence: (last?.sequence ?? 0) + 1, previous: last?.digest ?? null },
    ...{ uuid, device, level, plan, started, finished, actor, survives, unreachable, steps: done },
  }
  const folder = panicDirectory(state, uuid)
  await ensureDirectory(folder)
  const path = join(folder, `receipt-${`${receipt.sequence}`.padStart(6, '0')}.json`)
  const text = `${canonicalJson(receipt)}\n`
  await writeDurable(path, text)
  return { path, digest: digestOf(Buffer.from(text)), receipt }
}

async function lastReceipt(state: string, uuid: string) {
  const name = (await receiptNames(state, uuid)).at(-1)
  if (name === undefined) return undefined
  const path = join(panicDirectory(state, uuid), name)
  const bytes = await readBounded(path, receiptLimit)
  const sequence = Number(name.replace(/\D/g, ''))
  const found = { path, sequence, digest: digestOf(bytes) }
  try {
    return { ...found, receipt: parseReceipt(bytes, path) }
  } catch (error) {
    if (isFault(error)) return { ...found, receipt: undefined }
    throw error
  }
}

function parseReceipt(bytes: Buffer, path: string): Receipt {
  try {
    return receiptSchema.parse(parseJson(bytes.toString('utf8'), path, receiptLimit))
  } catch (error) {
    const reason = error instanceof z.ZodError ? 'a member is missing or wrong' : 'it is not JSON'
    throw malformed(path, reason)
  }
}

function malformed(path: string, reason: string): Error {
  return vaultFault('vault.receipt_malformed', `the receipt ${path}: ${reason}`)
}
