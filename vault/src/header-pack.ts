import { createHash } from 'node:crypto'
import { isFault, type JsonObject, parseJsonObject, Secret } from '@holdfast/base'
import { z } from 'zod'
import { vaultFault } from './faults.ts'
import { type HeaderFacts, parseHeaderImage } from './header-format.ts'

// What is sealed as a header backup: a description, then only those ranges of the header that carry
// anything. cryptsetup's own backup is always the whole area, 16 MiB by default, nearly all of it
// free space: sealed and in base64url that would not fit a sealed secret, and free space may still
// hold the material of destroyed keyslots.

const magic = Buffer.from('HOLDFAST-HEADER\n', 'ascii')
const prefixLength = magic.length + 4

const manifestSchema = z.looseObject({
  v: z.literal(1),
  length: z.int().positive(),
  segments: z.array(z.object({ offset: z.int().min(0), length: z.int().min(0) })).max(100),
  imageDigest: z.string().length(64),
})

/** The largest header that is unpacked: 4 MiB of metadata twice and 128 MiB of keyslots. */
const lengthLimit = 136 * 1024 * 1024

/** SHA-256 of a header image, in hex. */
export function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** True for bytes that begin like a packed header. */
export function isPacked(bytes: Buffer): boolean {
  return bytes.subarray(0, magic.length).equals(magic)
}

/**
 * Packs a header image.
 * @param image as `withoutFreeSpace` returns it
 * @param description members to carry along, authenticated by the sealing
 */
export function pack(image: Secret, facts: HeaderFacts, description: JsonObject): Secret {
  const bytes = image.reveal()
  const manifest = Buffer.from(
    JSON.stringify({
      ...description,
      v: 1,
      length: facts.length,
      segments: facts.used,
      imageDigest: digestOf(bytes),
    }),
    'utf8',
  )
  const prefix = Buffer.alloc(prefixLength)
  magic.copy(prefix)
  prefix.writeUInt32BE(manifest.length, magic.length)
  const parts = facts.used.map(({ offset, length }) => bytes.subarray(offset, offset + length))
  return Secret.take(Buffer.concat([prefix, manifest, ...parts]))
}

export interface Unpacked extends Disposable {
  image: Secret
  facts: HeaderFacts
  /** The members given to `pack`, with those of the packing itself. */
  description: JsonObject
}

/**
 * Unpacks and checks every length and digest before anything is believed.
 * @throws Fault vault.backup_malformed, vault.header_damaged, vault.metadata_malformed
 */
export function unpack(packed: Secret, what: string): Unpacked {
  const bytes = packed.reveal()
  if (!isPacked(bytes) || bytes.length < prefixLength) throw malformed(what, 'it is not one')
  const start = prefixLength + bytes.readUInt32BE(magic.length)
  const { manifest, description } = readManifest(bytes.subarray(prefixLength, start), what)
  if (start > bytes.length || manifest.length > lengthLimit) throw malformed(what, 'it is cut off')
  const image = Buffer.alloc(manifest.length)
  let at = start
  for (const { offset, length } of manifest.segments) {
    if (offset + length > image.length || at + length > bytes.length) {
      throw malformed(what, 'a range lies outside the header')
    }
    bytes.copy(image, offset, at, at + length)
    at += length
  }
  if (at !== bytes.length) throw malformed(what, 'bytes are left over')
  if (digestOf(image) !== manifest.imageDigest) throw malformed(what, 'its digest does not match')
  const facts = parseHeaderImage(image, what)
  if (facts.length !== image.length) throw malformed(what, 'its length is not its header’s')
  const secret = Secret.take(image)
  return { image: secret, facts, description, [Symbol.dispose]: () => secret[Symbol.dispose]() }
}

function readManifest(bytes: Buffer, what: string) {
  try {
    const description = parseJsonObject(bytes.toString('utf8'), 'the manifest')
    const parsed = manifestSchema.safeParse(description)
    if (parsed.success) return { manifest: parsed.data, description }
  } catch (error) {
    if (!isFault(error)) throw error
  }
  throw malformed(what, 'its manifest cannot be read')
}

function malformed(what: string, reason: string): Error {
  return vaultFault('vault.backup_malformed', `the header backup ${what}: ${reason}`)
}
