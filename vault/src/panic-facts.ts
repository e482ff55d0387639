import { readdir, readFile } from 'node:fs/promises'
import { basename, join, relative, resolve } from 'node:path'
import { isFault, parseJson, readBounded, readIfPresent } from '@holdfast/base'
import { jweLimit } from '@holdfast/crypto'
import { inspect, type Pins } from '@holdfast/seal'
import { z } from 'zod'
import { hasDeviceMapper, headerPath, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { readHeaderImage } from './header.ts'
import {
  type BackupList,
  backupDirectory,
  type HeaderBackup,
  listBackups,
} from './header-backup.ts'
import { type HeaderFacts, searchLength, survivingCopies } from './header-format.ts'
import { readRegion, sizeOf } from './header-io.ts'
import { areaOf, type HeaderRecord, headerRecord } from './header-record.ts'
import type { PanicFacts } from './panic-plan.ts'
import type { PanicLevel } from './panic-record.ts'
import { type VaultDeps, vaultDirectory } from './state.ts'
import { filesBelow, holdsHeader } from './wipe.ts'

/** What cryptsetup's headers take up unless told otherwise. */
const usualArea = 16 * 1024 * 1024
const blockDevices = '/sys/block'
const auditLimit = 16 * 1024 * 1024
const exportSchema = z.object({
  event: z.literal('export-request'),
  at: z.string(),
  keyslot: z.number(),
  request: z.string(),
})

/**
 * Finds out all that a wipe's plan depends on. Nothing is changed.
 * @param uuid the volume's UUID, needed when no intact header is left
 * @throws Fault vault.not_luks when it is not known whose volume this is, or how much of it is header
 */
export async function gatherPanicFacts(
  deps: VaultDeps,
  volume: VolumeRef,
  level: PanicLevel,
  uuid?: string,
): Promise<PanicFacts> {
  const found = await presentHeader(volume)
  const id = found?.uuid ?? uuid
  if (id === undefined) {
    throw vaultFault('vault.not_luks', `${volume.device} has no readable LUKS header`, {
      hint: 'name the volume: --uuid UUID',
    })
  }
  if (uuid !== undefined && uuid !== id) {
    throw vaultFault('vault.backup_foreign', `${volume.device} is volume ${id}, not ${uuid}`)
  }
  const list = await listBackups(deps.stateDirectory, id)
  const known = await knownHeader(deps, id)
  const fresh = freshBackup(list, found, known)
  return {
    uuid: id,
    device: resolve(volume.device),
    ...(volume.header === undefined ? {} : { header: resolve(volume.header) }),
    deviceMapper: await hasDeviceMapper(),
    mappings: await mappingsOf(id),
    keyslots: found?.keyslots.length,
    area: await areaToWipe(volume, level, found, known, list),
    fresh: fresh && (await describeFresh(deps.pins, fresh)),
    backups: [...list.backups, ...list.broken].map(({ path }) => basename(path)),
    images: await imageNames(deps, id),
    exports: [...(known?.exports ?? []), ...(await exportedRequests(deps, id))],
  }
}

/** Files in the volume's state directory that hold a header in the clear. */
export async function headerImages(state: string, uuid: string): Promise<string[]> {
  const sealed = backupDirectory(state, uuid)
  const files = (await filesBelow(vaultDirectory(state, uuid))).filter(
    (path) => relative(sealed, path).startsWith('..') && basename(path) !== 'lock',
  )
  const held = await Promise.all(
    files.map(async (path) => path.endsWith('.img') || (await holdsHeader(path))),
  )
  return files.filter((_, index) => held[index])
}

/** Names of the mappings through which this volume is open (dm's uuid: CRYPT-LUKS2-UUID-NAME). */
export async function mappingsOf(uuid: string): Promise<string[]> {
  const prefix = `CRYPT-LUKS2-${uuid.replaceAll('-', '')}-`
  const names: string[] = []
  for (const device of await readdir(blockDevices).catch(() => [])) {
    const read = (name: string) => readFile(join(blockDevices, device, 'dm', name), 'utf8')
    const id = await read('uuid').catch(() => '')
    if (id.startsWith(prefix)) names.push((await read('name')).trim())
  }
  return names.sort()
}

// A wipe is not kept from its work by a damaged record: what it cannot read it goes without.

async function knownHeader(deps: VaultDeps, uuid: string): Promise<HeaderRecord | undefined> {
  try {
    return await headerRecord(deps.stateDirectory, uuid).read()
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}

/** Recovery requests that were exported, by the audit log. */
async function exportedRequests(
  deps: VaultDeps,
  uuid: string,
): Promise<{ what: string; time: string }[]> {
  const path = join(vaultDirectory(deps.stateDirectory, uuid), 'audit.log')
  try {
    const log = (await readIfPresent(path, auditLimit))?.toString('utf8') ?? ''
    return log.split('\n').flatMap((line) => {
      const event = exportSchema.safeParse(jsonOf(line))
      if (!event.success) return []
      const { keyslot, request, at } = event.data
      return [{ what: `the recovery request ${request} of keyslot ${keyslot}`, time: at }]
    })
  } catch (error) {
    if (!isFault(error)) throw error
    return [{ what: 'recovery requests named in the audit log, which cannot be read', time: '?' }]
  }
}

function jsonOf(line: string): unknown {
  try {
    return parseJson(line, 'an audit line')
  } catch {
    return undefined
  }
}

async function presentHeader(volume: VolumeRef): Promise<HeaderFacts | undefined> {
  const path = headerPath(volume)
  await sizeOf(path)
  // Only a device that still shows a copy is given to cryptsetup, which repairs what it reads.
  if (survivingCopies(await readRegion(path, searchLength)).length === 0) return undefined
  try {
    using header = await readHeaderImage(volume)
    return header.facts
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}

/** The newest backup of the header in place, or of the last known one when none is in place. */
function freshBackup(
  list: BackupList,
  found: HeaderFacts | undefined,
  known: HeaderRecord | undefined,
): HeaderBackup | undefined {
  const digest = found?.digest ?? known?.digest
  return list.backups.findLast((backup) => backup.facts.digest === digest)
}

/** Checks that the sealed file can be read, all pins known; opening it would need the holders. */
async function describeFresh(
  pins: Pins,
  backup: HeaderBackup,
): Promise<{ name: string; policy: string } | undefined> {
  try {
    const sealed = (await readBounded(backup.path, jweLimit)).toString('utf8')
    const { label, children = [] } = inspect(pins, sealed)
    const names = children.map((child) => child.label).join(', ')
    const policy = names === '' ? label : `${label}: ${names}`
    return { name: basename(backup.path), policy }
  } catch (error) {
    if (isFault(error)) return undefined
    throw error
  }
}

async function areaToWipe(
  volume: VolumeRef,
  level: PanicLevel,
  found: HeaderFacts | undefined,
  known: HeaderRecord | undefined,
  list: BackupList,
): Promise<number> {
  const last = list.backups.at(-1)?.facts
  const area = found === undefined ? (known?.area ?? (last && areaOf(last))) : areaOf(found)
  if (area !== undefined) return area
  // Data that only a header backup could bring back must not be hit by a guess.
  if (level === 3) return Math.min(usualArea, await sizeOf(headerPath(volume)))
  throw vaultFault('vault.not_luks', `nothing says how much of ${volume.device} is its header`, {
    hint: 'a level 3 wipe overwrites the first 16 MiB',
  })
}

async function imageNames(deps: VaultDeps, uuid: string): Promise<string[]> {
  const folder = vaultDirectory(deps.stateDirectory, uuid)
  return (await headerImages(deps.stateDirectory, uuid)).map((path) => relative(folder, path))
}
