import { isFault, isObject, type JsonObject, parseJson } from '@holdfast/base'
import { z } from 'zod'
import { vaultFault } from './faults.ts'

// The JSON area of a LUKS2 header (LUKS2 On-Disk Format 1.1.1, chapter 3), as `cryptsetup luksDump
// --dump-json-metadata` prints it. 64-bit numbers are decimal strings there and numbers here.

const number64 = z
  .string()
  .regex(/^\d{1,19}$/)
  .transform(Number)
const slotNumber = z.string().regex(/^\d{1,2}$/)

const keyslotSchema = z.looseObject({
  type: z.string(),
  key_size: z.number(),
  priority: z.number().optional(),
  area: z.looseObject({ offset: number64, size: number64 }),
  kdf: z.looseObject({ type: z.string(), salt: z.string().optional() }).optional(),
})
const tokenSchema = z.looseObject({ type: z.string(), keyslots: z.array(slotNumber) })
const digestSchema = z.looseObject({ type: z.string(), keyslots: z.array(slotNumber) })
const metadataSchema = z.looseObject({
  keyslots: z.record(slotNumber, keyslotSchema),
  tokens: z.record(slotNumber, tokenSchema),
  segments: z.record(z.string(), z.looseObject({ type: z.string() })),
  digests: z.record(slotNumber, digestSchema),
  config: z.looseObject({
    json_size: number64,
    keyslots_size: number64,
    requirements: z.looseObject({ mandatory: z.array(z.string()).optional() }).optional(),
  }),
})

/** One keyslot's area in the header, in bytes from the header's start. */
export interface Area {
  offset: number
  size: number
}

export interface Keyslot {
  id: number
  type: string
  /** Bytes of volume key held. */
  keySize: number
  /** `pbkdf2`, `argon2i`, `argon2id`, or undefined for slots without a passphrase. */
  derivation: string | undefined
  /** The derivation's salt: tells this keyslot from any other that has had its number. */
  salt: string
  area: Area
  /** True when a digest of a data segment vouches for it: false for an unbound or stale slot. */
  opensData: boolean
}

/** A token as it is; `json` keeps every member, known to us or not. */
export interface RawToken {
  id: number
  type: string
  keyslots: readonly number[]
  json: JsonObject
}

export interface Metadata {
  keyslots: ReadonlyMap<number, Keyslot>
  tokens: ReadonlyMap<number, RawToken>
  /** Bytes one JSON area can hold, its terminating zero not counted. */
  jsonCapacity: number
  /** Bytes the JSON takes now, as cryptsetup stores it (compact). */
  jsonUsed: number
  /** Where the keyslot areas begin and end, in bytes from the header's start. */
  keyslotsArea: Area
  /** Bytes from the start of the header to the end of the keyslot areas: all that a header is. */
  headerLength: number
  /** Mandatory requirements, such as `online-reencrypt-v2`: something must be finished first. */
  requirements: readonly string[]
  json: JsonObject
}

/** LUKS2 numbers keyslots and tokens 0 to 31 (LUKS2 On-Disk Format 1.1.1, 3.2 and 3.5). */
export const slotLimit = 32

const binaryHeaderSize = 4096

/** Parses the metadata strictly. @throws Fault vault.metadata_malformed */
export function parseMetadata(text: string, device: string): Metadata {
  const json = readObject(text, device)
  const parsed = metadataSchema.safeParse(json)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw malformed(device, `${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`.trim())
  }
  const { keyslots, tokens, digests, segments, config } = parsed.data
  const used = new Set(
    Object.values(digests)
      .filter((digest) => isObject(digest) && holdsData(digest, segments))
      .flatMap((digest) => digest.keyslots.map(Number)),
  )
  const keyslotStart = 2 * (binaryHeaderSize + config.json_size)
  return {
    keyslots: new Map(
      Object.entries(keyslots).map(([name, slot]) => [
        Number(name),
        {
          id: Number(name),
          type: slot.type,
          keySize: slot.key_size,
          derivation: slot.kdf?.type,
          salt: slot.kdf?.salt ?? '',
          area: { offset: slot.area.offset, size: slot.area.size },
          opensData: used.has(Number(name)),
        },
      ]),
    ),
    tokens: new Map(
      Object.entries(tokens).map(([name, token]) => [
        Number(name),
        {
          id: Number(name),
          type: token.type,
          keyslots: token.keyslots.map(Number),
          json: token,
        },
      ]),
    ),
    jsonCapacity: config.json_size - 1,
    jsonUsed: compactLength(json),
    keyslotsArea: { offset: keyslotStart, size: config.keyslots_size },
    headerLength: keyslotStart + config.keyslots_size,
    requirements: config.requirements?.mandatory ?? [],
    json,
  }
}

/** Bytes of a value as cryptsetup stores it: compact JSON in UTF-8. */
export function compactLength(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value), 'utf8')
}

/** The lowest free keyslot number, or undefined. */
export function freeKeyslot(metadata: Metadata): number | undefined {
  return firstFree(metadata.keyslots)
}

/** The lowest free token number not in `taken`, or undefined. */
export function freeToken(metadata: Metadata, taken: readonly number[] = []): number | undefined {
  return firstFree(metadata.tokens, taken)
}

/** True when the keyslot areas have a gap wide enough for one more slot of this volume's key. */
export function hasKeyslotArea(metadata: Metadata): boolean {
  const areas = [...metadata.keyslots.values()].map((slot) => slot.area)
  const needed = Math.max(0, ...areas.map((area) => area.size))
  const { offset, size } = metadata.keyslotsArea
  let start = offset
  for (const area of areas.sort((a, b) => a.offset - b.offset)) {
    if (area.offset - start >= needed) return true
    start = Math.max(start, area.offset + area.size)
  }
  return offset + size - start >= needed
}

/** Bytes that one more keyslot adds to the JSON: the longest now, plus what may be longer in it. */
export function keyslotJsonLength(metadata: Metadata): number {
  const slots = isObject(metadata.json.keyslots) ? Object.values(metadata.json.keyslots) : []
  const longest = Math.max(300, ...slots.map(compactLength))
  // The name, quotes and commas here and in the digest and the token, and a longer salt or offset.
  return longest + 96
}

function firstFree(used: ReadonlyMap<number, unknown>, taken: readonly number[] = []) {
  for (let id = 0; id < slotLimit; id += 1) {
    if (!used.has(id) && !taken.includes(id)) return id
  }
  return undefined
}

function holdsData(digest: JsonObject, segments: JsonObject): boolean {
  const names = digest.segments
  return Array.isArray(names) && names.some((name) => typeof name === 'string' && name in segments)
}

function readObject(text: string, device: string): JsonObject {
  try {
    const value = parseJson(text, `the metadata of ${device}`, 16 * 1024 * 1024)
    if (isObject(value)) return value
  } catch (error) {
    if (!isFault(error)) throw error
  }
  throw malformed(device, 'it is not a JSON object')
}

function malformed(device: string, reason: string): Error {
  return vaultFault('vault.metadata_malformed', `the LUKS2 metadata of ${device}: ${reason}`)
}
