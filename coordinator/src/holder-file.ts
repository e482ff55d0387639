import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { canonicalJson, parseJsonObject, type Secret } from '@holdfast/base'
import { encryptJwe } from '@holdfast/crypto'
import { keyId } from '@holdfast/link'
import {
  bytesSchema,
  digestSchema,
  nameSchema,
  publicKeySchema,
  sealedSchema,
} from '@holdfast/protocol'
import { compactDecrypt } from 'jose'
import { z } from 'zod'
import { ceremonyFault } from './ceremony-faults.ts'

// The two files of an air gap. The request is what the API gives for one holder, signed by the
// identity key, so the offline machine need not trust the courier. The answer's statement is
// encrypted to that same key, so the courier learns no share.

const requestSchema = z.object({
  holder: nameSchema,
  kid: digestSchema,
  algorithm: z.string().max(40),
  wrapped: bytesSchema,
  sealed: sealedSchema,
  statement: z.string().max(4096),
  signature: bytesSchema,
  key: publicKeySchema,
})
export type HolderRequestFile = z.infer<typeof requestSchema>

export interface HolderAnswerFile {
  holder: string
  /** base64url of a compact JWE to the identity key; its plaintext is what is signed. */
  statement: string
  signature: string
}

const fileLimit = 512 * 1024

/**
 * Reads a request file on the offline machine.
 * @param pinned the coordinator's identity, base64url SHA-256 of its SubjectPublicKeyInfo
 * @throws Fault ceremony.answer_malformed, ceremony.request_untrusted
 */
export function readRequestFile(text: string, pinned: string): HolderRequestFile {
  const parsed = requestSchema.safeParse(parseJsonObject(text, 'the request', fileLimit))
  if (!parsed.success)
    throw ceremonyFault('ceremony.answer_malformed', 'this is not a request to a holder')
  const { statement, signature, key, holder } = parsed.data
  const identity = createPublicKey(key)
  if (keyId(identity) !== pinned) {
    throw ceremonyFault(
      'ceremony.request_untrusted',
      `the request is signed by the identity ${keyId(identity)}, not by the pinned one`,
      { hint: 'ask for the pin on another channel; never answer a request that does not match it' },
    )
  }
  const right = verify(
    'sha256',
    Buffer.from(statement, 'utf8'),
    identity,
    Buffer.from(signature, 'base64url'),
  )
  if (!right || !statement.includes(`\nholder ${holder}\n`))
    throw ceremonyFault('ceremony.request_untrusted', 'the request was altered on its way')
  return parsed.data
}

/**
 * Makes the answer file.
 * @param statement the exact bytes that `signature` covers: the request's lines and the last one
 */
export async function makeAnswerFile(
  request: Pick<HolderRequestFile, 'holder' | 'key'>,
  statement: Secret,
  signature: Buffer,
): Promise<string> {
  const header = { alg: 'ECDH-ES', typ: answerType }
  const sealed = await encryptJwe(header, createPublicKey(request.key), statement)
  const file: HolderAnswerFile = {
    holder: request.holder,
    statement: Buffer.from(sealed, 'ascii').toString('base64url'),
    signature: signature.toString('base64url'),
  }
  return `${canonicalJson(file)}\n`
}

const answerType = 'holdfast-holder-answer'
const compactJwe = /^eyJ[\w-]*\.[\w-]*\.[\w-]+\.[\w-]+\.[\w-]+$/

/** A statement as it arrived: plain, or as a JWE to the identity key. @throws Fault ceremony.answer_malformed */
export async function openStatement(bytes: Buffer, identity: KeyObject): Promise<Buffer> {
  if (bytes.length > 16_384 || !compactJwe.test(bytes.toString('latin1'))) return bytes
  try {
    const { plaintext } = await compactDecrypt(bytes.toString('latin1'), identity, {
      keyManagementAlgorithms: ['ECDH-ES'],
    })
    return Buffer.from(plaintext.buffer, plaintext.byteOffset, plaintext.byteLength)
  } catch {
    throw ceremonyFault(
      'ceremony.answer_malformed',
      'the answer is not encrypted to this coordinator',
      { hint: 'fetch the request again and answer that: its key may have been a temporary one' },
    )
  }
}
