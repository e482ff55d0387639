import { stat } from 'node:fs/promises'
import { run } from '@holdfast/base'
import { headerPath, luksType, readUuid, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { readRecord, type VaultDeps, vaultAt } from './state.ts'

/** blkid(8): 2 nothing found, 8 more than one thing found. */
const nothingFound = 2
const severalFound = 8

/**
 * Refuses to format anything that holds something: a LUKS header, a filesystem, a partition table.
 * Only the remains of a creation that was interrupted may go.
 * @throws Fault vault.already_formatted, vault.device_absent
 */
export async function requireBlank(deps: VaultDeps, volume: VolumeRef): Promise<void> {
  const header = await stat(headerPath(volume)).catch(() => undefined)
  if (header !== undefined && header.size !== 0) {
    const type = await luksType(volume)
    if (type !== undefined && (await isUnfinished(deps, volume))) return
    if (type !== undefined) throw occupied(headerPath(volume), `a ${type} header`)
  }
  const args = ['--probe', '--output', 'export', volume.device]
  const result = await run('blkid', args, { accept: [0, nothingFound, severalFound] })
  if (result.code === nothingFound) return
  const [, type = 'data of several kinds'] =
    /^(?:TYPE|PTTYPE)=(.*)$/m.exec(result.stdout.toString('utf8')) ?? []
  throw occupied(volume.device, type)
}

async function isUnfinished(deps: VaultDeps, volume: VolumeRef): Promise<boolean> {
  const vault = await vaultAt(deps, volume, await readUuid(volume))
  return (await readRecord(vault)).state === 'creating'
}

function occupied(path: string, what: string): Error {
  return vaultFault('vault.already_formatted', `${path} holds ${what}`, {
    hint: 'check that it is the right device; --overwrite destroys what is on it',
  })
}
