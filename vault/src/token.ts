import { createHmac } from 'node:crypto'
import { canonicalJson, isFault, isObject, type JsonObject, type Secret } from '@holdfast/base'
import { compactJwe, flattenJwe, parseJwe } from '@holdfast/crypto'
import { z } from 'zod'
import { vaultFault } from './faults.ts'
import type { RawToken } from './metadata.ts'

// What Holdfast writes into LUKS2 tokens. An automatic binding is a clevis token with one more
// member, so that a distribution's own clevis opens it; the member survives clevis's reading but
// not its regen. Recovery and owner slots have a type of their own, so that an initramfs does not
// try to open them unattended.

export const clevisType = 'clevis'
export const holdfastType = 'holdfast'

/** What a keyslot is for: opened by machines, by holders together, or by a typed passphrase. */
export type Purpose = 'automatic' | 'recovery' | 'owner'

const purposes = ['automatic', 'recovery', 'owner'] as const

/** Holdfast's own member of a token. */
export interface Mark {
  v: 1
  purpose: Purpose
  /** Counts the times this way in has been resealed. */
  generation: number
  /** The policy asked for, in clevis's form, when only a part of it could be bound. */
  wanted?: { pin: string; config: JsonObject }
  /** `wantedMac` of `wanted`: a token is plain text on the disk, which others may have written. */
  mac?: string
  label?: string
}

/** A token as Holdfast understands it. */
export type Token =
  | {
      kind: 'binding'
      id: number
      keyslots: readonly number[]
      purpose: 'automatic' | 'recovery'
      /** The sealed keyslot passphrase, a compact JWE. */
      jwe: string
      /** Absent on a token that clevis wrote or rewrote. */
      mark: Mark | undefined
    }
  | { kind: 'owner'; id: number; keyslots: readonly number[]; mark: Mark }
  /** A token of a program Holdfast knows nothing of. */
  | { kind: 'foreign'; id: number; keyslots: readonly number[]; type: string }
  /** A clevis or holdfast token that cannot be read. It is reported and left alone. */
  | { kind: 'malformed'; id: number; keyslots: readonly number[]; type: string; reason: string }

const markSchema = z.looseObject({
  v: z.literal(1),
  purpose: z.enum(purposes),
  generation: z.int().min(0),
  wanted: z.object({ pin: z.string(), config: z.record(z.string(), z.unknown()) }).optional(),
  mac: z.string().max(100).optional(),
  label: z.string().max(200).optional(),
})

const text = z.string()
const jweSchema = z.looseObject({
  protected: text,
  encrypted_key: text.optional(),
  recipients: z
    .array(z.looseObject({ encrypted_key: text.optional() }))
    .length(1)
    .optional(),
  iv: text,
  ciphertext: text,
  tag: text,
})

/**
 * Authenticates the policy that is still to be bound: HMAC-SHA256 under the keyslot's passphrase,
 * base64url. The passphrase is 256 random bits, so that the code tells nothing about it.
 */
export function wantedMac(passphrase: Secret, wanted: NonNullable<Mark['wanted']>): string {
  return createHmac('sha256', passphrase.reveal())
    .update(`holdfast wanted 1\n${canonicalJson(wanted)}`)
    .digest('base64url')
}

/** Understands a token; never throws, whatever is in it. */
export function readToken(raw: RawToken): Token {
  const { id, keyslots, type, json } = raw
  if (type !== clevisType && type !== holdfastType) return { kind: 'foreign', id, keyslots, type }
  try {
    const mark = readMark(json[holdfastType], type)
    if (mark?.purpose === 'owner') return { kind: 'owner', id, keyslots, mark }
    const purpose = mark?.purpose ?? 'automatic'
    return { kind: 'binding', id, keyslots, purpose, jwe: readJwe(json.jwe), mark }
  } catch (error) {
    const reason = isFault(error) ? error.message : 'it cannot be read'
    return { kind: 'malformed', id, keyslots, type, reason }
  }
}

/** The token of a sealed keyslot passphrase. */
export function bindingToken(keyslot: number, jwe: string, mark: Mark): JsonObject {
  const { ciphertext, encrypted_key, iv, protected: head, tag } = flattenJwe(jwe)
  return {
    type: mark.purpose === 'automatic' ? clevisType : holdfastType,
    keyslots: [`${keyslot}`],
    jwe: { ciphertext, encrypted_key, iv, protected: head, tag },
    holdfast: mark,
  }
}

/** The token that records who owns a passphrase slot. */
export function ownerToken(keyslot: number, mark: Mark): JsonObject {
  return { type: holdfastType, keyslots: [`${keyslot}`], holdfast: mark }
}

function readMark(value: unknown, type: string): Mark | undefined {
  if (value === undefined && type === clevisType) return undefined
  const parsed = markSchema.safeParse(value)
  if (!parsed.success) {
    // A clevis token whose extra member is not ours is still a clevis token.
    if (type === clevisType && !(isObject(value) && value.v === 1)) return undefined
    throw malformed('its holdfast member is not understood')
  }
  const { v, purpose, generation, wanted, mac, label } = parsed.data
  return {
    v,
    purpose: type === clevisType ? 'automatic' : purpose,
    generation,
    ...(wanted === undefined ? {} : { wanted }),
    ...(mac === undefined ? {} : { mac }),
    ...(label === undefined ? {} : { label }),
  }
}

function readJwe(value: unknown): string {
  const parsed = jweSchema.safeParse(value)
  if (!parsed.success) throw malformed('it holds no sealed secret')
  const { recipients, encrypted_key: key, iv, ciphertext, tag } = parsed.data
  const encryptedKey = key ?? recipients?.[0]?.encrypted_key ?? ''
  const compact = compactJwe({
    protected: parsed.data.protected,
    encrypted_key: encryptedKey,
    iv,
    ciphertext,
    tag,
  })
  parseJwe(compact)
  return compact
}

function malformed(reason: string): Error {
  return vaultFault('vault.token_malformed', reason)
}
