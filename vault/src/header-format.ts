import { createHash } from 'node:crypto'
import { canonicalJson, isObject, type JsonObject } from '@holdfast/base'
import { vaultFault } from './faults.ts'
import { parseMetadata } from './metadata.ts'

// What the bytes of a LUKS2 header say (LUKS2 On-Disk Format 1.1.1, chapter 2): two copies of a
// binary header with a JSON area each, then the keyslot areas. Pure: nothing here touches a disk.
// cryptsetup decides whether a header is good; this file tells headers apart and sizes them.

/** One binary header whose checksum holds, with its JSON area. */
export interface HeaderCopy {
  /** Bytes from the start of the header area. */
  offset: number
  /** Bytes of the binary header and its JSON area together. */
  size: number
  uuid: string
  /** Rises with every change that cryptsetup writes. */
  seqid: number
  json: string
}

/** A keyslot told apart from a later one of the same number: `NUMBER:FINGERPRINT`. */
export type KeyslotIdentity = string

export interface HeaderFacts {
  uuid: string
  seqid: number
  /** Bytes of the header: both metadata copies and the keyslot areas. */
  length: number
  /** First byte of encrypted data on the data device; 0 when the header is detached. */
  dataOffset: number
  keyslots: readonly KeyslotIdentity[]
  /**
   * SHA-256, in hex, of the volume key's digests: the same data cannot have two, and nobody can make
   * a key that has another's. '' when there is none.
   */
  volumeKey: string
  /** SHA-256, in hex, over uuid, seqid, keyslots with salts, tokens, digests and segments. */
  digest: string
  /** Ranges of the header that carry anything; the rest is free space. */
  used: readonly { offset: number; length: number }[]
}

const binaryLength = 4096
const primaryMagic = Buffer.from('LUKS\xba\xbe', 'latin1')
const secondaryMagic = Buffer.from('SKUL\xba\xbe', 'latin1')

/** Sizes of one metadata copy, which are also the places a secondary one may be. */
export const metadataSizes = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096].map((kib) => kib * 1024)

/** Bytes at the start of a device where header copies are looked for. */
export const searchLength = 2 * 4096 * 1024

/** Reads the header copy at `offset`, or undefined when there is none whose checksum holds. */
export function readCopy(bytes: Buffer, offset: number): HeaderCopy | undefined {
  if (bytes.length < offset + binaryLength) return undefined
  const magic = bytes.subarray(offset, offset + 6)
  if (!magic.equals(offset === 0 ? primaryMagic : secondaryMagic)) return undefined
  const size = Number(bytes.readBigUInt64BE(offset + 8))
  const known = metadataSizes.includes(size) && bytes.length >= offset + size
  if (!known || bytes.readUInt16BE(offset + 6) !== 2) return undefined
  if (Number(bytes.readBigUInt64BE(offset + 256)) !== offset) return undefined
  const algorithm = textAt(bytes, offset + 72, 32)
  if (algorithm !== 'sha256' && algorithm !== 'sha512') return undefined
  const copy = Buffer.from(bytes.subarray(offset, offset + size))
  const stored = Buffer.from(copy.subarray(448, 512))
  copy.fill(0, 448, 512)
  const sum = createHash(algorithm).update(copy).digest()
  if (!sum.equals(stored.subarray(0, sum.length))) return undefined
  return {
    offset,
    size,
    uuid: textAt(copy, 168, 40).toLowerCase(),
    seqid: Number(copy.readBigUInt64BE(16)),
    json: textAt(copy, binaryLength, size - binaryLength),
  }
}

/** Every intact header copy at a place where one may be: what is left of a damaged header. */
export function survivingCopies(start: Buffer): HeaderCopy[] {
  return [0, ...metadataSizes].flatMap((offset) => readCopy(start, offset) ?? [])
}

/**
 * The facts of a whole header image.
 * @throws Fault vault.header_damaged unless both copies are intact and say the same
 */
export function parseHeaderImage(image: Buffer, what: string): HeaderFacts {
  const primary = readCopy(image, 0)
  if (primary === undefined) throw damaged(what, 'its primary copy is not intact')
  const secondary = readCopy(image, primary.size)
  if (secondary === undefined) throw damaged(what, 'its secondary copy is not intact')
  if (
    primary.seqid !== secondary.seqid ||
    primary.uuid !== secondary.uuid ||
    primary.json !== secondary.json
  ) {
    throw damaged(what, 'its two copies differ')
  }
  return factsOf(primary, image, what)
}

/** The facts of one intact copy; `image` holds the area at least as far as the metadata goes. */
export function factsOf(copy: HeaderCopy, image: Buffer, what: string): HeaderFacts {
  const { uuid, seqid, json: text, size } = copy
  const { json, keyslots, headerLength, keyslotsArea } = parseMetadata(text, what)
  if (keyslotsArea.offset !== 2 * size) throw damaged(what, 'its sizes contradict each other')
  const areas = [...keyslots.values()].map(({ id, area }) => {
    const inside = area.offset >= keyslotsArea.offset && area.offset + area.size <= headerLength
    if (!inside) throw damaged(what, `keyslot ${id} points outside the keyslot areas`)
    return { offset: area.offset, length: area.size }
  })
  const metadata = [0, size].map((offset) => ({
    offset,
    length: lengthWithoutZeros(image.subarray(offset, offset + size)),
  }))
  return {
    uuid,
    seqid,
    length: headerLength,
    dataOffset: dataOffsetOf(json),
    keyslots: identities(json),
    volumeKey: volumeKeyOf(json),
    digest: createHash('sha256').update(canonicalJson({ uuid, seqid, json })).digest('hex'),
    used: [...metadata, ...areas].sort((a, b) => a.offset - b.offset),
  }
}

/**
 * The same header with zeros wherever no metadata and no keyslot is. Free space may still hold the
 * material of destroyed keyslots, or whatever the disk held before.
 */
export function withoutFreeSpace(image: Buffer, facts: HeaderFacts): Buffer {
  const clean = Buffer.alloc(facts.length)
  for (const { offset, length } of facts.used) image.copy(clean, offset, offset, offset + length)
  return clean
}

/** Keyslots of `before` that `after` does not have: what going back to `before` resurrects. */
export function removedKeyslots(
  before: readonly KeyslotIdentity[],
  after: readonly KeyslotIdentity[],
): KeyslotIdentity[] {
  return before.filter((identity) => !after.includes(identity))
}

function identities(json: JsonObject): KeyslotIdentity[] {
  const keyslots = isObject(json.keyslots) ? json.keyslots : {}
  return Object.entries(keyslots)
    .sort(([a], [b]) => Number(a) - Number(b))
    .map(([id, slot]) => `${id}:${fingerprint(isObject(slot) ? (slot.kdf ?? slot) : slot)}`)
}

/** From the salt and value of each digest, without its list of keyslots, which changes. */
export function volumeKeyOf(json: JsonObject): string {
  const digests = isObject(json.digests) ? Object.entries(json.digests) : []
  if (digests.length === 0) return ''
  const values = digests.map(([id, digest]) =>
    isObject(digest) ? [id, digest.salt, digest.digest] : [id],
  )
  return createHash('sha256').update(canonicalJson(values)).digest('hex')
}

/** Short enough to type, long enough never to collide by accident. */
function fingerprint(value: unknown): string {
  return createHash('sha256').update(canonicalJson(value)).digest('hex').slice(0, 16)
}

function dataOffsetOf(json: JsonObject): number {
  const segments = isObject(json.segments) ? Object.values(json.segments) : []
  const offsets = segments.flatMap((segment) => (isObject(segment) ? [Number(segment.offset)] : []))
  return offsets.length === 0 ? 0 : Math.min(...offsets)
}

function lengthWithoutZeros(bytes: Buffer): number {
  let length = bytes.length
  while (length > 0 && bytes[length - 1] === 0) length -= 1
  return length
}

function textAt(bytes: Buffer, offset: number, length: number): string {
  const field = bytes.subarray(offset, offset + length)
  const end = field.indexOf(0)
  return field.subarray(0, end < 0 ? length : end).toString('utf8')
}

function damaged(what: string, reason: string): Error {
  return vaultFault('vault.header_damaged', `the LUKS2 header of ${what}: ${reason}`)
}
