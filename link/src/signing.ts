import { type KeyObject, sign, verify } from 'node:crypto'
import { canonicalJson, fromBase64url, type JsonObject } from '@holdfast/base'
import type { CoordinatorFrame } from '@holdfast/protocol/frames'
import { linkFault } from './faults.ts'

// What is signed between coordinator and agents. Every text begins with its purpose and names where
// it counts, so that a signature is worth nothing in another place. ECDSA P-256 with SHA-256, DER,
// base64url, over the canonical JSON's UTF-8 bytes.

export type CommandFrame = Extract<CoordinatorFrame, { kind: 'command' }>
export type DocumentFrame = Extract<CoordinatorFrame, { kind: 'document' }>
/** What the coordinator says by itself about guardians and their keys. */
export type ErrandFrame = Extract<CoordinatorFrame, { kind: 'ward' | 'reshare' }>
export type WardFrame = Extract<ErrandFrame, { kind: 'ward' }>
export type ReshareFrame = Extract<ErrandFrame, { kind: 'reshare' }>
/** One that is not signed yet. */
export type Errand = Omit<WardFrame, 'signature'> | Omit<ReshareFrame, 'signature'>

/** Signs `[purpose, body]` in canonical JSON. */
export function signBody(key: KeyObject, purpose: string, body: JsonObject): string {
  return sign('sha256', bytesOf(purpose, body), key).toString('base64url')
}

/** Says whether `signature` is by `key` over the same purpose and body. Never throws on bad input. */
export function isSigned(
  key: KeyObject,
  purpose: string,
  body: JsonObject,
  signature: string,
): boolean {
  try {
    return verify('sha256', bytesOf(purpose, body), key, fromBase64url(signature))
  } catch {
    return false
  }
}

function bytesOf(purpose: string, body: JsonObject): Buffer {
  return Buffer.from(canonicalJson([`holdfast ${purpose} 1`, body]), 'utf8')
}

/** Where a command or a document counts. */
export interface Addressee {
  cluster: string
  node: string
}

/** Signs a command for one node. */
export function signCommand(
  key: KeyObject,
  to: Addressee,
  command: Omit<CommandFrame, 'kind' | 'signature'>,
): CommandFrame {
  const { id, command: name, by, issue, arguments: given } = command
  const body = { ...to, id, command: name, by, issue, arguments: given }
  return { kind: 'command', ...command, signature: signBody(key, 'command', body) }
}

/** @throws Fault link.document_invalid unless the command key signed it for this node */
export function checkCommand(key: KeyObject, to: Addressee, frame: CommandFrame): void {
  const { id, command, by, issue, arguments: given } = frame
  const body = { ...to, id, command, by, issue, arguments: given }
  if (isSigned(key, 'command', body, frame.signature)) return
  throw linkFault(
    'link.document_invalid',
    `the command ${frame.command} is not signed by the coordinator for this node`,
  )
}

/**
 * Signs an errand for one node. The coordinator's identity alone must not be enough for it: that key
 * lies on its disk, also while the state is sealed.
 */
export function signErrand(key: KeyObject, to: Addressee, errand: Errand): ErrandFrame {
  return { ...errand, signature: signBody(key, errand.kind, { ...to, ...errand }) }
}

/** @throws Fault link.document_invalid unless the command key signed it for this node */
export function checkErrand(key: KeyObject, to: Addressee, frame: ErrandFrame): void {
  const { signature, ...errand } = frame
  if (isSigned(key, frame.kind, { ...to, ...errand }, signature)) return
  throw linkFault(
    'link.document_invalid',
    `the order about ${frame.kind === 'ward' ? 'the keys of a ward' : 'new guardians'} is not signed by the coordinator for this node`,
  )
}

/** Signs a document; its body names its cluster and, if it is for one node, that node. */
export function signDocument(
  key: KeyObject,
  document: Omit<DocumentFrame, 'kind' | 'signature'>,
): DocumentFrame {
  const { name, version, body } = document
  return {
    kind: 'document',
    ...document,
    signature: signBody(key, 'document', { name, version, body }),
  }
}

/** @throws Fault link.document_invalid unless the command key signed it */
export function checkDocument(key: KeyObject, frame: DocumentFrame): void {
  const { name, version, body } = frame
  if (isSigned(key, 'document', { name, version, body }, frame.signature)) return
  throw linkFault('link.document_invalid', `the document ${name} is not signed by the coordinator`)
}

/** A coordinator generation that nodes remember; the identity key proves that it existed. */
export interface Witness {
  cluster: string
  generation: number
  proof: string
}

/** Proves by the identity key that the cluster has reached this generation. */
export function signGeneration(identity: KeyObject, cluster: string, generation: number): Witness {
  return {
    cluster,
    generation,
    proof: signBody(identity, 'generation', { cluster, generation }),
  }
}

/** Says whether the identity key has proven this generation. */
export function isWitnessed(identity: KeyObject, witness: Witness): boolean {
  const { cluster, generation, proof } = witness
  return isSigned(identity, 'generation', { cluster, generation }, proof)
}
