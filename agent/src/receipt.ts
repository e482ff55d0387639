import { createPublicKey } from 'node:crypto'
import { join } from 'node:path'
import {
  canonicalJson,
  ensureDirectory,
  type JsonObject,
  parseJsonObject,
  writeDurable,
} from '@holdfast/base'
import { isSigned, keyId, signBody } from '@holdfast/link'
import type { Receipt } from '@holdfast/vault'
import type { NodeKeys } from './identity.ts'
import { publicPem } from './identity.ts'

// The proof that an end has been carried out: the vault's receipt under the node's identity. It is
// written to DIR/receipts before it is sent, because the identity that signs it may be about to go.

export interface SignedReceipt extends JsonObject {
  receipt: JsonObject
  /** PEM of the identity that has signed; its key id is the node. */
  identity: string
  signature: string
}

/** Signs a receipt, and keeps it where it outlives the identity. */
export async function signReceipt(
  directory: string,
  keys: NodeKeys,
  command: string,
  what: string,
  receipt: Receipt | undefined,
): Promise<SignedReceipt> {
  // Through JSON: what is signed is what is sent.
  const vault = receipt === undefined ? null : parseJsonObject(JSON.stringify(receipt), 'a receipt')
  const body: JsonObject = { v: 1, node: keys.node, command, what, vault }
  const signed = {
    receipt: body,
    identity: publicPem(keys.identity),
    signature: signBody(keys.identity, 'receipt', body),
  }
  const folder = join(directory, 'receipts')
  await ensureDirectory(folder)
  await writeDurable(join(folder, `${safe(command)}.json`), `${canonicalJson(signed)}\n`)
  return signed
}

/** True when the node that the receipt names has signed it. */
export function isReceiptOf(
  node: string,
  { receipt, identity, signature }: SignedReceipt,
): boolean {
  try {
    const key = createPublicKey(identity)
    const named = keyId(key) === node && receipt.node === node
    return named && isSigned(key, 'receipt', receipt, signature)
  } catch {
    return false
  }
}

/** The command's id comes from outside and becomes a file's name. */
function safe(command: string): string {
  return command.replace(/[^A-Za-z0-9_-]/g, '_').slice(0, 64) || 'none'
}
