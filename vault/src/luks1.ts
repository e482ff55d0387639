import { type FileHandle, open } from 'node:fs/promises'
import { codeOf, type Fault, isFault } from '@holdfast/base'
import { flattenJwe, parseJwe } from '@holdfast/crypto'
import { vaultFault } from './faults.ts'

// Reads a LUKS1 header (LUKS1 On-Disk Format 1.2.3, section 4) and the luksmeta table in the gap
// behind its key material (luksmeta 9). All numbers are big-endian. LUKS1 is read, never written:
// the gap is small and has no second copy, so the advice is to convert.

/** A clevis binding found in the luksmeta table. */
export interface Luks1Binding {
  keyslot: number
  /** True when the keyslot of the same number holds a key: an orphan binding opens nothing. */
  keyslotActive: boolean
  /** The sealed secret, a compact JWE; absent when `fault` says why it cannot be read. */
  jwe?: string
  fault?: Fault
}

export interface Luks1Volume {
  uuid: string
  /** Numbers of the keyslots that hold a key. */
  keyslots: readonly number[]
  /** `absent`: the gap was never initialised by luksmeta. */
  metadata: 'present' | 'absent'
  bindings: readonly Luks1Binding[]
  /** Entries of other programs: their UUIDs, untouched and unread. */
  foreign: readonly { keyslot: number; uuid: string }[]
}

const magic = Buffer.from('LUKS\xba\xbe', 'latin1')
const headerLength = 592
const keyslotCount = 8
const keyslotActive = 0x00ac71f3
const sector = 512
const alignment = 4096
/** Key material and gap of any volume cryptsetup makes end below this. */
const areaLimit = 32 * 1024 * 1024

const metaMagic = Buffer.from('LUKSMETA', 'latin1')
const metaHeaderLength = 272
const clevisUuid = 'cb6e8904-81ff-40da-a84a-07ab9ab5715e'
const emptyUuid = '00000000-0000-0000-0000-000000000000'

/**
 * Parses the start of a LUKS1 device, from its first byte to the start of the data at least.
 * One damaged binding does not hide the others: it carries its own fault.
 * @throws Fault vault.not_luks, vault.luks1_malformed, vault.luks1_metadata_damaged
 */
export function parseLuks1(bytes: Buffer, device: string): Luks1Volume {
  const { uuid, keyslots, gap } = parseHeader(bytes, device)
  const region = bytes.subarray(gap.offset, gap.offset + gap.length)
  const table = readTable(region, device)
  const bindings: Luks1Binding[] = []
  const foreign: { keyslot: number; uuid: string }[] = []
  for (const entry of table ?? []) {
    if (entry.uuid === emptyUuid) continue
    if (entry.uuid !== clevisUuid) foreign.push({ keyslot: entry.keyslot, uuid: entry.uuid })
    else bindings.push(readBinding(region, entry, keyslots, device))
  }
  return { uuid, keyslots, metadata: table ? 'present' : 'absent', bindings, foreign }
}

/**
 * Reads a LUKS1 volume with the clevis bindings in its luksmeta table.
 * @param path the device or file that holds the header
 * @throws Fault vault.device_absent and those of `parseLuks1`
 */
export async function readLuks1(path: string): Promise<Luks1Volume> {
  let file: FileHandle
  try {
    file = await open(path, 'r')
  } catch (cause) {
    throw vaultFault('vault.device_absent', `cannot read ${path}: ${codeOf(cause) ?? 'error'}`)
  }
  await using _ = file
  const start = await readAt(file, headerLength)
  const { gap } = parseHeader(start, path)
  return parseLuks1(await readAt(file, gap.offset + gap.length), path)
}

/** A command for the operator, with what to give it on standard input where it needs that. */
export interface ConversionStep {
  command: string
  input?: string
}

/**
 * The commands that turn this volume into LUKS2 with every readable binding kept. cryptsetup
 * refuses to convert while a luksmeta table is there ("Unable to convert header with LUKSMETA
 * additional metadata"), so the table goes first and the same sealed secrets come back as tokens.
 */
export function conversionSteps(volume: Luks1Volume, device: string): ConversionStep[] {
  const target = quote(device)
  const backup = `cryptsetup luksHeaderBackup ${target} --header-backup-file /dev/shm/${volume.uuid}.luks1`
  const steps: ConversionStep[] = [{ command: backup }]
  if (volume.metadata === 'present') steps.push({ command: `luksmeta nuke -f -d ${target}` })
  steps.push({ command: `cryptsetup convert --type luks2 ${target}` })
  for (const { keyslot, jwe } of volume.bindings) {
    if (jwe === undefined) continue
    const token = { type: 'clevis', keyslots: [`${keyslot}`], jwe: flattenJwe(jwe) }
    steps.push({ command: `cryptsetup token import ${target}`, input: JSON.stringify(token) })
  }
  return steps
}

/** The fault to answer any request to change a LUKS1 volume with; its details name the bindings. */
export function luks1Fault(volume: Luks1Volume, device: string): Fault {
  const { uuid, keyslots, bindings } = volume
  const found = bindings.length === 1 ? 'one clevis binding' : `${bindings.length} clevis bindings`
  const steps = conversionSteps(volume, device)
  const commands = steps.map(({ command, input }) =>
    input === undefined ? command : `${command} < TOKEN.json`,
  )
  return vaultFault('vault.luks1', `${device} has a LUKS1 header with ${found}: it is only read`, {
    hint: `convert it while closed: ${commands.join(' && ')}`,
    details: {
      uuid,
      keyslots,
      bindings: bindings.map(({ keyslot, keyslotActive, fault }) => ({
        keyslot,
        keyslotActive,
        ...(fault === undefined ? {} : { fault: fault.toJSON() }),
      })),
      steps,
    },
  })
}

interface Header {
  uuid: string
  keyslots: number[]
  gap: { offset: number; length: number }
}

function parseHeader(bytes: Buffer, device: string): Header {
  if (bytes.length < headerLength || !bytes.subarray(0, 6).equals(magic)) {
    throw vaultFault('vault.not_luks', `${device} has no LUKS1 header`)
  }
  const version = bytes.readUInt16BE(6)
  if (version !== 1) throw vaultFault('vault.not_luks', `${device} has LUKS version ${version}`)
  const uuid = textAt(bytes, 168, 40).toLowerCase()
  if (!/^[0-9a-f-]{36}$/.test(uuid)) throw malformed(device, 'its uuid cannot be read')
  const keyBytes = bytes.readUInt32BE(108)
  const dataOffset = bytes.readUInt32BE(104) * sector
  const keyslots: number[] = []
  let end = 0
  for (let keyslot = 0; keyslot < keyslotCount; keyslot += 1) {
    const at = 208 + keyslot * 48
    if (bytes.readUInt32BE(at) === keyslotActive) keyslots.push(keyslot)
    const stripes = bytes.readUInt32BE(at + 44)
    const material = Math.ceil((keyBytes * stripes) / sector) * sector
    end = Math.max(end, bytes.readUInt32BE(at + 40) * sector + material)
  }
  const offset = Math.ceil(end / alignment) * alignment
  if (end === 0 || end > areaLimit) throw malformed(device, 'its keyslot areas are out of range')
  // A detached header gives the data offset as zero: what follows the key material is all gap.
  const length =
    dataOffset === 0 ? 64 * 1024 : Math.max(0, Math.min(dataOffset - offset, areaLimit))
  return { uuid, keyslots, gap: { offset, length } }
}

interface TableEntry {
  keyslot: number
  uuid: string
  offset: number
  length: number
  checksum: number
}

function readTable(region: Buffer, device: string): TableEntry[] | undefined {
  const header = Buffer.from(region.subarray(0, metaHeaderLength))
  const found = header.subarray(0, 8).equals(metaMagic)
  if (header.length < metaHeaderLength) return undefined
  const stored = header.readUInt32BE(12)
  metaMagic.copy(header)
  header.writeUInt32BE(0, 12)
  const intact = crc32c(header) === stored
  // With a wrong magic but a right checksum, it is the magic that was hit.
  if (!found && !intact) return undefined
  if (!found || !intact) throw damaged(device, 'its checksum does not match')
  const version = header.readUInt32BE(8)
  if (version !== 1) throw damaged(device, `it has version ${version}, not 1`)
  return Array.from({ length: keyslotCount }, (_, keyslot) => {
    const at = 16 + keyslot * 32
    return {
      keyslot,
      uuid: uuidAt(header, at),
      offset: header.readUInt32BE(at + 16),
      length: header.readUInt32BE(at + 20),
      checksum: header.readUInt32BE(at + 24),
    }
  })
}

function readBinding(
  region: Buffer,
  entry: TableEntry,
  active: readonly number[],
  device: string,
): Luks1Binding {
  const { keyslot, offset, length, checksum } = entry
  const binding = { keyslot, keyslotActive: active.includes(keyslot) }
  const where = `the entry of keyslot ${keyslot}`
  if (offset < metaHeaderLength || offset + length > region.length) {
    return { ...binding, fault: damaged(device, `${where} points outside the gap`) }
  }
  const data = region.subarray(offset, offset + length)
  if (crc32c(data) !== checksum) {
    return { ...binding, fault: damaged(device, `the checksum of ${where} does not match`) }
  }
  const jwe = data.toString('latin1').trim()
  try {
    parseJwe(jwe)
  } catch (error) {
    if (isFault(error)) return { ...binding, fault: error }
    throw error
  }
  return { ...binding, jwe }
}

async function readAt(file: FileHandle, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return bytes.subarray(0, filled)
}

function textAt(bytes: Buffer, offset: number, length: number): string {
  const field = bytes.subarray(offset, offset + length)
  const end = field.indexOf(0)
  return field.subarray(0, end < 0 ? length : end).toString('latin1')
}

function uuidAt(bytes: Buffer, offset: number): string {
  const hex = bytes.subarray(offset, offset + 16).toString('hex')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0)
  return value
})

/** CRC-32C (RFC 3720 appendix B.4); the one in node:zlib is the other polynomial. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] ?? 0)
  return (crc ^ 0xffffffff) >>> 0
}

function quote(word: string): string {
  return /^[\w./@:+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

function malformed(device: string, reason: string): Fault {
  return vaultFault('vault.luks1_malformed', `the LUKS1 header of ${device}: ${reason}`)
}

function damaged(device: string, reason: string): Fault {
  return vaultFault(
    'vault.luks1_metadata_damaged',
    `the luksmeta table of ${device} is damaged: ${reason}`,
    { hint: 'the keyslots are not affected; open with a passphrase, then bind again on LUKS2' },
  )
}
