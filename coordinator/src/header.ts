import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { canonicalJson, parseJson } from '@holdfast/base'
import { digestSchema, idSchema, nameSchema, publicKeySchema } from '@holdfast/protocol'
import { z } from 'zod'
import { coordinatorFault } from './faults.ts'

// The plaintext header of the sealed state: who is needed to open it. A sealed coordinator can say
// it out loud because the identity key signs it; a changed one is noticed because its digest lies
// inside every sealed copy of the data key.

const headerSchema = z.strictObject({
  version: z.literal(1),
  cluster: idSchema,
  name: nameSchema,
  generation: z.number().int().min(1),
  /** k, n and who; absent when the manifest states that there is no recovery. */
  holders: z
    .strictObject({
      threshold: z.number().int().min(1),
      list: z.array(z.strictObject({ name: nameSchema, kid: digestSchema, key: publicKeySchema })),
    })
    .optional(),
  /** The fleet's certificate authority, PEM: agents are recognised while sealed. */
  authority: z.string().max(8192),
  /** The digest of the header of the generation before. */
  previous: digestSchema.optional(),
})
export type Header = z.infer<typeof headerSchema>

export interface SignedHeader {
  body: string
  /** ECDSA P-256 with SHA-256, DER, base64url. */
  signature: string
}

/** SHA-256 of the header's exact bytes, base64url. */
export function headerDigest(body: string): string {
  return createHash('sha256').update(body, 'utf8').digest('base64url')
}

/** Signs the header's canonical JSON: SHA-256 and the identity's key, base64url. */
export function signHeader(header: Header, identity: KeyObject): SignedHeader {
  const body = canonicalJson(headerSchema.parse(header))
  return {
    body,
    signature: sign('sha256', Buffer.from(body, 'utf8'), identity).toString('base64url'),
  }
}

/** Reads a stored header. @throws Fault coordinator.header_invalid */
export function readHeader(signed: SignedHeader, identity: KeyObject): Header {
  const signature = Buffer.from(signed.signature, 'base64url')
  const key = identity.type === 'private' ? createPublicKey(identity) : identity
  if (!verify('sha256', Buffer.from(signed.body, 'utf8'), key, signature))
    throw invalid('its signature is not by this identity')
  const parsed = headerSchema.safeParse(parseJson(signed.body, 'the header'))
  if (!parsed.success) throw invalid(z.prettifyError(parsed.error))
  return parsed.data
}

function invalid(reason: string): Error {
  return coordinatorFault(
    'coordinator.header_invalid',
    `the header of the sealed state cannot be used: ${reason}`,
    {
      hint: 'restore the store from a backup: holdfast coordinator restore, or check with: holdfast coordinator verify-backup',
    },
  )
}
