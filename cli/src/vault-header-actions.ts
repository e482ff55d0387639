import { basename, resolve } from 'node:path'
import { isFault } from '@holdfast/base'
import {
  allHeaderRecords,
  backupHeader,
  backupPolicy,
  destroyStaleBackups,
  type HeaderBackup,
  listBackups,
  type Restored,
  readBackup,
  readUuid,
  restoreHeader,
  resumeRestore,
  staleBackups,
  unfinishedPanics,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import type { Context, Outcome } from './command.ts'
import { cliFault } from './faults.ts'
import { age, size } from './format.ts'
import type { Input } from './input.ts'
import { painter, table } from './output.ts'
import { timeoutOf } from './pins.ts'
import { readPolicyFile } from './policy-input.ts'
import { passphraseFrom, vaultDepsFrom, volumeFrom } from './volume.ts'

/** `holdfast vault header backup` */
export async function backupAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const volume = volumeFrom(input)
  const file = input.text('policy')
  const policy = file === undefined ? await backupPolicy(deps, volume) : await readPolicyFile(file)
  if (policy === undefined) {
    throw cliFault('cli.holders_unknown', `${volume.device} has no recovery holders`, {
      hint: 'name holders to seal the backup to: --policy FILE',
    })
  }
  const backup = await backupHeader(deps, volume, policy, {
    signal: context.signal,
    reencrypted: input.flag('reencrypted'),
  })
  const { generation, keyslots, length } = backup.facts
  const what = `generation ${generation}, ${keyslots.length} keyslots, ${size(length)}`
  return { json: backup, text: `sealed the header (${what}) to ${backup.path}` }
}

/** `holdfast vault header list` */
export async function listAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const uuid = await uuidFrom(input, deps)
  const list = await listBackups(deps.stateDirectory, uuid)
  const now = context.clock.now()
  const rows = list.backups.map(({ path, facts }) => [
    String(facts.generation),
    `${age(Date.parse(facts.time), now)} ago`,
    facts.keyslots.map((name) => name.split(':')[0]).join(' '),
    basename(path),
  ])
  const head = ['GENERATION', 'MADE', 'KEYSLOTS', 'FILE']
  const broken = list.broken.map(
    ({ path, reason }) => `${painter()('bad', 'broken')}: ${path}: ${reason}`,
  )
  const text = rows.length === 0 ? `no header backups of ${uuid}` : await table(head, rows)
  return { json: { uuid, ...list }, text: [text, ...broken].join('\n') }
}

/** `holdfast vault header restore` */
export async function restoreAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const volume = volumeFrom(input)
  const backup = await backupFrom(input, deps)
  using passphrase = await passphraseFrom(input, context)
  const [expected, stale] = [input.text('expect'), input.text('accept-stale')]
  const restored = await restoreHeader(deps, volume, backup, {
    unproven: input.flag('keep-unproven') ? 'keep' : 'roll_back',
    opening: { timeout: timeoutOf(input), signal: context.signal },
    ...(expected === undefined ? {} : { expected }),
    ...(stale === undefined ? {} : { acceptStale: stale.split(',') }),
    ...(passphrase === undefined ? {} : { passphrase }),
  })
  return { json: restored, text: restoredText(restored, volume.device) }
}

/** `holdfast vault header resume` */
export async function resumeAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  using passphrase = await passphraseFrom(input, context)
  const uuid = await uuidFrom(input, deps)
  const restored = await resumeRestore(deps, uuid, {
    opening: { timeout: timeoutOf(input), signal: context.signal },
    ...(passphrase === undefined ? {} : { passphrase }),
  })
  if (restored === undefined) return { json: { restored: null }, text: 'nothing was interrupted' }
  return { json: restored, text: restoredText(restored, input.word(0) ?? uuid) }
}

/** `holdfast vault header prune` */
export async function pruneAction(input: Input, context: Context): Promise<Outcome> {
  const deps = await vaultDepsFrom(input, context)
  const volume = volumeFrom(input)
  const dryRun = input.flag('dry-run')
  const stale = await (dryRun ? staleBackups(deps, volume) : destroyStaleBackups(deps, volume))
  const verb = dryRun ? 'would destroy' : 'destroyed'
  const lines = stale.map(({ path, resurrects }) => {
    const why = resurrects.length === 0 ? 'unreadable' : `resurrects ${resurrects.join(', ')}`
    return `${verb} ${path}: ${why}`
  })
  return { json: stale, text: lines.length === 0 ? 'no stale backups' : lines.join('\n') }
}

function restoredText({ uuid, because, resurrected, proof }: Restored, device: string): string {
  return [
    `the header of ${uuid} is back on ${device}: ${because}`,
    proof === undefined
      ? painter()('warn', 'no way in has been proven yet: holdfast vault rehearse')
      : `keyslot ${proof.keyslot} opens (by ${proof.by})`,
    ...(resurrected.length === 0 ? [] : [`resurrected keyslots: ${resurrected.join(', ')}`]),
  ].join('\n')
}

async function backupFrom(input: Input, deps: VaultDeps): Promise<HeaderBackup> {
  const file = input.text('backup')
  if (file !== undefined) return await readBackup(file)
  const uuid = await uuidFrom(input, deps)
  const { backups } = await listBackups(deps.stateDirectory, uuid)
  const newest = backups.at(-1)
  if (newest !== undefined) return newest
  throw cliFault('cli.backup_absent', `there is no header backup of ${uuid}`, {
    hint: 'look for one elsewhere and name it: --backup FILE',
  })
}

/** The volume's UUID: given, from its header, or from the record of what was at this path. */
export async function uuidFrom(input: Input, deps: VaultDeps): Promise<string> {
  const given = input.text('uuid')
  if (given !== undefined) return given
  const volume: VolumeRef = volumeFrom(input)
  try {
    return await readUuid(volume)
  } catch (error) {
    if (!isFault(error)) throw error
    const records = await allHeaderRecords(deps.stateDirectory)
    const wipes = await unfinishedPanics(deps.stateDirectory)
    const here = [...records, ...wipes].filter(({ device }) => device === resolve(volume.device))
    const [first, ...others] = new Set(here.map(({ uuid }) => uuid))
    if (first !== undefined && others.length === 0) return first
    throw cliFault('cli.volume_unknown', `${volume.device} does not say which volume it is`, {
      cause: error,
      hint: `name it: --uuid UUID; the ones known here: ls ${deps.stateDirectory}/vaults`,
    })
  }
}
