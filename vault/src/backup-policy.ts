import { readBounded } from '@holdfast/base'
import { jweLimit } from '@holdfast/crypto'
import { type Policy, policyOf } from '@holdfast/seal'
import { readMetadata, readUuid, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { listBackups } from './header-backup.ts'
import { policyText, takeInventory } from './inventory.ts'
import type { VaultDeps } from './state.ts'

/**
 * The holders that a header backup is sealed to when nobody names others: those of a recovery
 * keyslot. Its token is plain text on the disk, so it must be the slot just written, or name the
 * same holders as the newest backup here: otherwise whoever can write the disk would have the
 * backups sealed away from the real holders.
 * @param added the keyslot that a change has just written
 * @returns undefined when there is no recovery keyslot
 * @throws Fault vault.holders_differ
 */
export async function backupPolicy(
  deps: VaultDeps,
  volume: VolumeRef,
  added?: number,
): Promise<Policy | undefined> {
  const { slots } = takeInventory(await readMetadata(volume), deps.pins)
  const candidates = slots.flatMap(({ purpose, policy, keyslot }) =>
    purpose === 'recovery' && policy !== undefined ? [{ policy, keyslot }] : [],
  )
  const written = candidates.find(({ keyslot }) => keyslot === added)
  const { backups } = await listBackups(deps.stateDirectory, await readUuid(volume))
  const newest = backups.at(-1)
  const [first] = candidates
  if (written !== undefined || newest === undefined) return (written ?? first)?.policy
  if (first === undefined) return undefined
  const sealed = (await readBounded(newest.path, jweLimit)).toString('utf8')
  const before = policyText(policyOf(deps.pins, sealed))
  const same = candidates.find(({ policy }) => policyText(policy) === before)
  if (same !== undefined) return same.policy
  throw vaultFault(
    'vault.holders_differ',
    `the recovery keyslot of ${volume.device} names other holders than its newest header backup`,
    {
      hint: 'if you changed them, say so: holdfast vault header backup --policy FILE; if not, somebody wrote to the disk',
    },
  )
}
