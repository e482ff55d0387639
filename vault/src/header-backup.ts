import { basename, join } from 'node:path'
import {
  canonicalJson,
  ensureDirectory,
  isFault,
  listDirectory,
  messageOf,
  parseJson,
  readBounded,
  systemClock,
  writeDurable,
} from '@holdfast/base'
import { jweLimit } from '@holdfast/crypto'
import { formatPolicy, type OpenOptions, open, type Pins, type Policy, seal } from '@holdfast/seal'
import { z } from 'zod'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { type HeaderImage, readHeaderImage } from './header.ts'
import { digestOf, pack, type Unpacked, unpack } from './header-pack.ts'
import { headerRecord, rememberHeader, requireSameVolumeKey } from './header-record.ts'
import { type VaultDeps, vaultDirectory } from './state.ts'

// A header backup is two files: NAME.jwe, the header sealed to the holders, and NAME.json, what it
// is. The same facts are inside the sealed part and win: the plain ones only help to choose. The
// sealed file is written first, so a crash leaves at most a sealed file that nothing names.

const factsSchema = z.object({
  v: z.literal(1),
  uuid: z.uuid(),
  seqid: z.int().min(0),
  generation: z.int().min(1),
  digest: z.string().length(64),
  volumeKey: z.string(),
  keyslots: z.array(z.string()),
  length: z.int().positive(),
  dataOffset: z.int().min(0),
  deviceSize: z.int().min(0),
  /** ISO 8601, UTC. */
  time: z.string(),
  /** SHA-256 of the policy sealed under. */
  policy: z.string().length(64),
})
const fileSchema = z.object({ facts: factsSchema, sealedDigest: z.string().length(64) })

/** What a header backup says it is. */
export type BackupFacts = z.infer<typeof factsSchema>

/** A complete backup whose sealed file is what its plain file says. */
export interface HeaderBackup {
  /** Path of the sealed file; the plain one ends in `.json` instead. */
  path: string
  facts: BackupFacts
}

export interface BackupList {
  /** Oldest first. */
  backups: HeaderBackup[]
  /** Files that are no usable backup but may hold one. */
  broken: { path: string; reason: string }[]
}

/** Where a volume's header backups lie. */
export function backupDirectory(state: string, uuid: string): string {
  return join(vaultDirectory(state, uuid), 'headers')
}

export interface BackupOptions {
  signal?: AbortSignal | undefined
  /** The data was encrypted anew, so the volume key may be another one. */
  reencrypted?: boolean
}

/**
 * Seals a backup of the header as it is now and remembers the header's state. When there already
 * is an intact one of this very header under this policy, that one is returned.
 * @param policy usually a threshold of holders
 * @throws Fault vault.backup_failed, vault.volume_replaced, those of `readHeaderImage` and of seal
 */
export async function backupHeader(
  deps: VaultDeps,
  volume: VolumeRef,
  policy: Policy,
  options: BackupOptions = {},
): Promise<HeaderBackup> {
  using header = await readHeaderImage(volume)
  const { facts, deviceSize } = header
  const state = deps.stateDirectory
  const now = (deps.clock ?? systemClock).now()
  const seen = { volume, facts, deviceSize, now }
  const known = await headerRecord(state, facts.uuid).read()
  if (options.reencrypted !== true) requireSameVolumeKey(known, { ...facts, device: volume.device })
  const { backups } = await listBackups(state, facts.uuid)
  const policyDigest = digestOf(Buffer.from(canonicalJson(formatPolicy(policy))))
  const same = backups.findLast((one) => one.facts.digest === facts.digest)
  if (same?.facts.policy === policyDigest) {
    await rememberHeader(state, seen)
    return same
  }
  const last = Math.max(known?.generation ?? 0, ...backups.map((one) => one.facts.generation))
  const described = describe(header, last + 1, policyDigest, now)
  const sealed = await sealHeader(deps.pins, policy, header, described, options.signal)
  const backup = await storeBackup(state, described, sealed)
  await rememberHeader(state, { ...seen, generation: last + 1 })
  return backup
}

function describe(
  header: HeaderImage,
  generation: number,
  policy: string,
  now: number,
): BackupFacts {
  const { facts, deviceSize } = header
  const { uuid, seqid, digest, volumeKey, keyslots, length, dataOffset } = facts
  return {
    ...{ v: 1, uuid, seqid, generation, digest, volumeKey, length, dataOffset, deviceSize, policy },
    keyslots: [...keyslots],
    time: new Date(now).toISOString(),
  }
}

async function sealHeader(
  pins: Pins,
  policy: Policy,
  header: HeaderImage,
  described: BackupFacts,
  signal?: AbortSignal,
): Promise<string> {
  using packed = pack(header.image, header.facts, { facts: described })
  const { generation, uuid, keyslots } = described
  const sealed = await seal(pins, policy, packed, {
    generation,
    ...(signal === undefined ? {} : { signal }),
  })
  if (sealed.length <= jweLimit) return sealed
  throw vaultFault(
    'vault.backup_failed',
    `the header of ${uuid} has ${keyslots.length} keyslots: sealed it takes ${sealed.length} characters, the limit is ${jweLimit}`,
    { hint: 'remove keyslots that are not needed: holdfast vault list' },
  )
}

async function storeBackup(
  state: string,
  facts: BackupFacts,
  sealed: string,
): Promise<HeaderBackup> {
  const folder = backupDirectory(state, facts.uuid)
  await ensureDirectory(folder)
  const order = `${facts.generation}`.padStart(6, '0')
  const path = join(folder, `${order}-${facts.seqid}-${facts.digest.slice(0, 16)}.jwe`)
  const file = { facts, sealedDigest: digestOf(Buffer.from(sealed)) }
  await writeDurable(path, sealed)
  await writeDurable(plainPath(path), `${canonicalJson(file)}\n`)
  return { path, facts }
}

/** Every backup of a volume, each checked against its plain file; nothing is opened. */
export async function listBackups(state: string, uuid: string): Promise<BackupList> {
  const folder = backupDirectory(state, uuid)
  const list: BackupList = { backups: [], broken: [] }
  const stems = new Set(
    (await listDirectory(folder)).map((name) => name.replace(/\.(jwe|json)$/, '')),
  )
  for (const stem of stems) {
    const path = join(folder, `${stem}.jwe`)
    try {
      list.backups.push(await readBackup(path))
    } catch (error) {
      if (!isFault(error)) throw error
      list.broken.push({ path, reason: error.message })
    }
  }
  list.backups.sort((a, b) => a.facts.generation - b.facts.generation)
  return list
}

/**
 * Reads what a backup says it is and checks that its sealed file is the one described.
 * @throws Fault vault.backup_absent, vault.backup_malformed
 */
export async function readBackup(path: string): Promise<HeaderBackup> {
  const name = basename(path)
  try {
    const text = (await readBounded(plainPath(path), 1_000_000)).toString('utf8')
    const file = fileSchema.parse(parseJson(text, plainPath(path)))
    const sealed = await readBounded(path, jweLimit)
    if (digestOf(sealed) !== file.sealedDigest) throw new Error('the sealed file was altered')
    return { path, facts: file.facts }
  } catch (cause) {
    if (isFault(cause, 'base.file_absent')) {
      throw vaultFault('vault.backup_absent', `the header backup ${name} is incomplete`, { cause })
    }
    const reason = cause instanceof z.ZodError ? 'its plain file is malformed' : messageOf(cause)
    throw vaultFault('vault.backup_malformed', `the header backup ${name}: ${reason}`, { cause })
  }
}

/**
 * Opens a backup. The sealed facts must be those of the plain file.
 * @throws Fault vault.backup_malformed, vault.header_damaged, those of seal's `open`
 */
export async function openBackup(
  backup: HeaderBackup,
  pins: Pins,
  options: OpenOptions = {},
): Promise<Unpacked> {
  const name = basename(backup.path)
  const sealed = (await readBounded(backup.path, jweLimit)).toString('utf8')
  using packed = await open(pins, sealed, options)
  const unpacked = unpack(packed, name)
  const inside = factsSchema.safeParse(unpacked.description.facts)
  const { facts } = unpacked
  if (
    !inside.success ||
    canonicalJson(inside.data) !== canonicalJson(backup.facts) ||
    inside.data.digest !== facts.digest ||
    inside.data.uuid !== facts.uuid
  ) {
    unpacked[Symbol.dispose]()
    throw vaultFault(
      'vault.backup_malformed',
      `the header backup ${name}: its plain file does not say what is sealed`,
    )
  }
  return unpacked
}

/** The file beside a sealed one that says what it is. */
export function plainPath(path: string): string {
  return path.replace(/\.jwe$/, '.json')
}
