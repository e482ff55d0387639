import { open, stat } from 'node:fs/promises'
import {
  type Argument,
  codeOf,
  type Fault,
  isFault,
  type JsonObject,
  parseJsonObject,
  type RunResult,
  run,
  type Secret,
} from '@holdfast/base'
import { vaultFault } from './faults.ts'
import { luks1Fault, readLuks1 } from './luks1.ts'
import { type Metadata, parseMetadata } from './metadata.ts'

// Every call of cryptsetup(8) that Holdfast makes. Secrets travel on standard input, a second one
// as an inherited descriptor of an unlinked tmpfs file. Nothing here decides anything.

/** A LUKS volume: a block device or an image file, with its header apart if it is detached. */
export interface VolumeRef {
  device: string
  header?: string
}

/** How a passphrase becomes a key. Full-entropy passphrases need no stretching. */
export type KeyDerivation =
  | { kind: 'full_entropy' }
  | { kind: 'pbkdf2'; iterations: number }
  | { kind: 'argon2id'; iterations?: number; memoryKiB?: number; parallel?: number }

export interface FormatOptions {
  derivation: KeyDerivation
  /** Bytes of each metadata area. Default 64 KiB: room for two large policies at once. */
  metadataSize?: number
  /** Bytes of the keyslot areas; cryptsetup's default (16 MiB less the metadata) when absent. */
  keyslotsSize?: number
  keyslot?: number
  label?: string
  /** The volume's UUID; cryptsetup makes one otherwise. */
  uuid?: string
}

export const cheapIterations = 1000

const noPermission = 2
const deviceMapperControl = '/dev/mapper/control'
/** Opening may cost a whole Argon2id run per slot on a slow machine. */
const slowTimeout = 300_000

/** Bytes of metadata area given to volumes Holdfast formats. */
export const defaultMetadataSize = 64 * 1024

/** Formats the device: whatever it held is gone. Checking first is the caller's duty. */
export async function format(
  volume: VolumeRef,
  passphrase: Secret,
  options: FormatOptions,
): Promise<void> {
  const sizes = ['--luks2-metadata-size', `${options.metadataSize ?? defaultMetadataSize}`]
  if (options.keyslotsSize !== undefined) {
    sizes.push('--luks2-keyslots-size', `${options.keyslotsSize}`)
  }
  if (options.keyslot !== undefined) sizes.push('--key-slot', `${options.keyslot}`)
  if (options.label !== undefined) sizes.push('--label', options.label)
  if (options.uuid !== undefined) sizes.push('--uuid', options.uuid)
  await call(
    volume,
    'luksFormat',
    ['--type', 'luks2', ...derivationArguments(options.derivation), ...sizes],
    { input: passphrase },
  )
}

/** The kind of header found: `undefined` when it is none of LUKS's. @throws vault.device_absent */
export async function luksType(volume: VolumeRef): Promise<'luks1' | 'luks2' | undefined> {
  await requireDevice(volume)
  for (const type of ['luks2', 'luks1'] as const) {
    const result = await run('cryptsetup', ['isLuks', '--type', type, headerPath(volume)], {
      accept: [0, 1, 4],
    })
    if (result.code === 0) return type
  }
  return undefined
}

/**
 * Reads the LUKS2 metadata.
 * @throws Fault vault.device_absent, vault.not_luks, vault.luks1, vault.metadata_malformed
 */
export async function readMetadata(volume: VolumeRef): Promise<Metadata> {
  await requireDevice(volume)
  const args = ['luksDump', '--dump-json-metadata', headerPath(volume)]
  const result = await run('cryptsetup', args, { accept: [0, 1, 4] })
  if (result.code === 0) return parseMetadata(result.stdout.toString('utf8'), volume.device)
  if ((await luksType(volume)) === 'luks1') {
    throw luks1Fault(await readLuks1(headerPath(volume)), headerPath(volume))
  }
  throw vaultFault('vault.not_luks', `${volume.device} has no readable LUKS header`, {
    hint: restoreHint(volume),
    details: { stderr: result.stderr.slice(0, 2000) },
  })
}

/** The volume's UUID, in lower case. @throws Fault vault.not_luks, vault.device_absent */
export async function readUuid(volume: VolumeRef): Promise<string> {
  await requireDevice(volume)
  const result = await run('cryptsetup', ['luksUUID', headerPath(volume)], { accept: [0, 1, 4] })
  const uuid = result.stdout.toString('utf8').trim().toLowerCase()
  if (result.code === 0 && /^[0-9a-f-]{36}$/.test(uuid)) return uuid
  throw vaultFault('vault.not_luks', `${volume.device} has no readable LUKS header`, {
    hint: restoreHint(volume),
  })
}

function restoreHint({ device }: VolumeRef): string {
  return `check the path; a header that was destroyed comes back with: holdfast vault header restore ${device}`
}

/**
 * Adds `added` to a keyslot; `existing` opens the volume already. Naming its keyslot saves trying it
 * on others, each of which may cost a whole Argon2id run.
 */
export async function addKey(
  volume: VolumeRef,
  keyslot: number,
  existing: Secret,
  added: Secret,
  derivation: KeyDerivation,
  existingKeyslot?: number,
): Promise<void> {
  const slots =
    existingKeyslot === undefined
      ? ['--key-slot', `${keyslot}`]
      : ['--key-slot', `${existingKeyslot}`, '--new-key-slot', `${keyslot}`]
  const args = [...slots, ...derivationArguments(derivation), '--key-file', '-']
  await call(volume, 'luksAddKey', args, { input: existing, after: [added] })
}

/**
 * Destroys a keyslot. Without a passphrase cryptsetup does not check that another slot opens: to
 * make sure of that first is the caller's duty.
 */
export async function killSlot(volume: VolumeRef, keyslot: number): Promise<void> {
  await call(volume, 'luksKillSlot', [], { after: [`${keyslot}`] })
}

/** True when the passphrase opens the volume (that keyslot, if one is named) without mapping it. */
export async function testPassphrase(
  volume: VolumeRef,
  passphrase: Secret,
  keyslot?: number,
): Promise<boolean> {
  const slot = keyslot === undefined ? [] : ['--key-slot', `${keyslot}`]
  const args = ['--test-passphrase', ...slot, '--key-file', '-']
  const result = await call(volume, 'open', args, {
    input: passphrase,
    accept: [0, 1, noPermission],
  })
  if (result.code !== 1) return result.code === 0
  // cryptsetup answers 1 for a keyslot that is not in use, and for a malformed call.
  if (/is not active|No usable keyslot/.test(result.stderr)) return false
  throw failure(volume, 'open', result.stderr)
}

/** The keyslot that this passphrase opens, or undefined. Tries them all: may take long. */
export async function findKeyslot(
  volume: VolumeRef,
  passphrase: Secret,
): Promise<number | undefined> {
  const args = ['--test-passphrase', '--verbose', '--key-file', '-']
  const options = { input: passphrase, accept: [0, noPermission] }
  const result = await call(volume, 'open', args, options)
  const [, number] = /Key slot (\d+) unlocked/.exec(result.stdout.toString('utf8')) ?? []
  return number === undefined ? undefined : Number(number)
}

/**
 * True where the kernel offers device-mapper: without it nothing can be mapped. The node alone
 * proves nothing, cryptsetup makes it; opening it loads the module where there is one.
 */
export async function hasDeviceMapper(): Promise<boolean> {
  try {
    await using _control = await open(deviceMapperControl, 'r+')
    return true
  } catch (error) {
    return codeOf(error) === 'EACCES'
  }
}

/** Maps the volume to /dev/mapper/NAME. @throws Fault vault.device_mapper_absent */
export async function openMapping(
  volume: VolumeRef,
  name: string,
  passphrase: Secret,
  keyslot?: number,
): Promise<string> {
  if (!(await hasDeviceMapper())) {
    throw vaultFault('vault.device_mapper_absent', 'this kernel has no device-mapper', {
      hint: 'load the module: modprobe dm_mod',
    })
  }
  const slot = keyslot === undefined ? [] : ['--key-slot', `${keyslot}`]
  await call(volume, 'open', [...slot, '--key-file', '-'], { input: passphrase, after: [name] })
  return `/dev/mapper/${name}`
}

/** Removes a mapping made by `openMapping`. */
export async function closeMapping(name: string): Promise<void> {
  await run('cryptsetup', ['close', name])
}

/** One token's JSON. @throws Fault vault.cryptsetup_failed when there is none of that number */
export async function exportToken(volume: VolumeRef, token: number): Promise<JsonObject> {
  const args = ['token', 'export', '--token-id', `${token}`, ...place(volume)]
  const result = await run('cryptsetup', args, { accept: [0, 1] })
  if (result.code !== 0) throw failure(volume, 'token export', result.stderr)
  return parseJsonObject(result.stdout.toString('utf8'), `token ${token} of ${volume.device}`)
}

/** Writes a token; `replace` allows a number that is in use, in one header write. */
export async function importToken(
  volume: VolumeRef,
  token: number,
  json: JsonObject,
  replace = false,
): Promise<void> {
  const args = [
    'token',
    'import',
    '--token-id',
    `${token}`,
    ...(replace ? ['--token-replace'] : []),
  ]
  const result = await run('cryptsetup', [...args, ...place(volume)], {
    input: JSON.stringify(json),
    accept: [0, 1],
  })
  if (result.code !== 0) throw failure(volume, 'token import', result.stderr)
}

export async function removeToken(volume: VolumeRef, token: number): Promise<void> {
  const args = ['token', 'remove', '--token-id', `${token}`, ...place(volume)]
  const result = await run('cryptsetup', args, { accept: [0, 1] })
  if (result.code !== 0) throw failure(volume, 'token remove', result.stderr)
}

/** Puts a header backup onto the device, whatever header that has; a secret image never has a name. */
export async function headerRestore(volume: VolumeRef, image: Argument): Promise<void> {
  await call(volume, 'luksHeaderRestore', ['--header-backup-file', image])
}

/** Destroys every keyslot. Without a header backup the data is lost. */
export async function erase(volume: VolumeRef): Promise<void> {
  await call(volume, 'erase', [])
}

/** The file or device that holds the header. */
export function headerPath(volume: VolumeRef): string {
  return volume.header ?? volume.device
}

interface CallOptions {
  input?: Secret
  /** Arguments that follow the device. */
  after?: readonly Argument[]
  accept?: readonly number[]
}

async function call(
  volume: VolumeRef,
  action: string,
  args: readonly Argument[],
  options: CallOptions = {},
): Promise<RunResult> {
  const words = [action, '--batch-mode', ...args, ...place(volume), ...(options.after ?? [])]
  try {
    return await run('cryptsetup', words, {
      timeout: slowTimeout,
      ...(options.input === undefined ? {} : { input: options.input }),
      ...(options.accept === undefined ? {} : { accept: options.accept }),
    })
  } catch (error) {
    throw translated(volume, action, error)
  }
}

function place(volume: VolumeRef): string[] {
  return volume.header === undefined ? [volume.device] : ['--header', volume.header, volume.device]
}

function derivationArguments(derivation: KeyDerivation): string[] {
  switch (derivation.kind) {
    case 'full_entropy':
      return ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', `${cheapIterations}`]
    case 'pbkdf2':
      return ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', `${derivation.iterations}`]
    case 'argon2id': {
      const { iterations, memoryKiB, parallel } = derivation
      const args = ['--pbkdf', 'argon2id']
      if (iterations !== undefined) args.push('--pbkdf-force-iterations', `${iterations}`)
      if (memoryKiB !== undefined) args.push('--pbkdf-memory', `${memoryKiB}`)
      if (parallel !== undefined) args.push('--pbkdf-parallel', `${parallel}`)
      return args
    }
    default:
      return derivation satisfies never
  }
}

async function requireDevice(volume: VolumeRef): Promise<void> {
  for (const path of [volume.device, headerPath(volume)]) {
    const found = await stat(path).catch(() => undefined)
    if (found === undefined || found.isDirectory()) {
      throw vaultFault('vault.device_absent', `${path} is not a device or file that can be read`)
    }
  }
}

function translated(volume: VolumeRef, action: string, error: unknown): unknown {
  if (!isFault(error, 'base.program_failed')) return error
  const stderr = textOf(error.details?.stderr)
  if (error.details?.code === noPermission) {
    return vaultFault(
      'vault.passphrase_wrong',
      `no keyslot of ${volume.device} opens with this passphrase`,
    )
  }
  return failure(volume, action, stderr)
}

function failure(volume: VolumeRef, action: string, stderr: string): Fault {
  const reason = stderr.trim().replaceAll('\n', ' ').slice(0, 500) || 'no reason given'
  return vaultFault('vault.cryptsetup_failed', `cryptsetup ${action} ${volume.device}: ${reason}`, {
    details: { stderr: stderr.slice(0, 4000) },
  })
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
