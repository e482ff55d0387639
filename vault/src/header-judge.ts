import { vaultFault } from './faults.ts'
import type { BackupFacts } from './header-backup.ts'
import { type HeaderFacts, type KeyslotIdentity, removedKeyslots } from './header-format.ts'
import type { HeaderRecord } from './header-record.ts'

// Decides whether a header backup may go onto a device. A foreign header makes the data
// unreadable for good once the right one is forgotten; a stale one gives back keys that somebody
// took away on purpose. Pure: the evidence is gathered elsewhere.

/** All that is known about the device and the volume before anything is written. */
export interface Evidence {
  device: string
  deviceSize: number
  /** The header in place, if a copy of it is intact. */
  live: Pick<HeaderFacts, 'uuid' | 'seqid' | 'volumeKey' | 'keyslots' | 'digest'> | undefined
  /** UUIDs of intact copies that are not the header in place: of it, or of an earlier one. */
  remains: readonly string[]
  /** What is remembered of the backup's volume. */
  known: HeaderRecord | undefined
  /** UUIDs of other volumes remembered at this very path. */
  others: readonly string[]
  /** `wiping` while a wipe is unfinished, `destroyed` after one of level 3. */
  fate: 'none' | 'wiping' | 'destroyed'
}

export interface Permission {
  /** The UUID the operator says the device has: stands in for lost evidence. */
  expected?: string
  /** Exactly the keyslots that a stale backup resurrects. */
  acceptStale?: readonly KeyslotIdentity[]
}

/** What restoring the backup means. */
export interface Verdict {
  /** Why this is the device's own header. */
  because: string
  stale: boolean
  resurrects: readonly KeyslotIdentity[]
}

/**
 * Judges a backup.
 * @throws Fault vault.backup_foreign, vault.backup_stale, vault.destroyed, vault.wipe_unfinished
 */
export function judgeRestore(
  backup: BackupFacts,
  evidence: Evidence,
  permission: Permission,
): Verdict {
  refuseWiped(backup, evidence)
  refuseForeign(backup, evidence, permission)
  const because = identify(backup, evidence, permission)
  const { stale, resurrects } = ageOf(backup, evidence)
  if (stale && !sameSet(resurrects, permission.acceptStale)) throw refusal(backup, resurrects)
  return { because, stale, resurrects }
}

function refuseWiped(backup: BackupFacts, { fate }: Evidence): void {
  if (fate === 'destroyed') {
    throw vaultFault('vault.destroyed', `volume ${backup.uuid} was destroyed by a level 3 wipe`, {
      hint: 'see its receipt; make a new volume: holdfast vault create',
    })
  }
  if (fate === 'wiping') {
    throw vaultFault('vault.wipe_unfinished', `a wipe of volume ${backup.uuid} is unfinished`, {
      hint: 'finish it first: holdfast vault panic --resume',
    })
  }
}

function refuseForeign(backup: BackupFacts, evidence: Evidence, permission: Permission): void {
  const { live, known, device } = evidence
  const { expected } = permission
  if (expected !== undefined && expected.toLowerCase() !== backup.uuid) {
    throw foreign(device, `volume ${expected} is expected there, the backup is of ${backup.uuid}`)
  }
  if (live !== undefined && live.uuid !== backup.uuid) {
    throw foreign(device, `it carries volume ${live.uuid}, the backup is of ${backup.uuid}`)
  }
  if (live !== undefined && live.volumeKey !== '' && live.volumeKey !== backup.volumeKey) {
    throw foreign(device, 'its data has another volume key: the volume was formatted again')
  }
  if (known !== undefined && known.volumeKey !== '' && known.volumeKey !== backup.volumeKey) {
    throw foreign(device, 'its data is remembered with another volume key than this backup has')
  }
}

function identify(backup: BackupFacts, evidence: Evidence, permission: Permission): string {
  const { live, remains, known, others, device, deviceSize } = evidence
  if (live !== undefined) return 'the header in place has its uuid'
  if (permission.expected !== undefined) return 'its uuid is the expected one'
  const [stranger] = [...remains, ...others].filter((uuid) => uuid !== backup.uuid)
  if (stranger !== undefined) {
    throw foreign(device, `there are traces of volume ${stranger}, the backup is of ${backup.uuid}`)
  }
  if (deviceSize !== backup.deviceSize) {
    const sizes = `${backup.deviceSize} bytes when backed up, ${deviceSize} now`
    throw foreign(device, `its size is another: ${sizes}`)
  }
  if (remains.includes(backup.uuid)) return 'a copy of its header survives'
  if (known?.device === device && !isPassingName(device)) return 'it is remembered at this path'
  throw foreign(device, `nothing on it or in our records says that it is ${backup.uuid}`)
}

/** The kernel gives these names in the order it finds disks: another boot, another disk. */
function isPassingName(device: string): boolean {
  return /^\/dev\/((sd|vd|xvd|hd)[a-z]|nvme|mmcblk|loop|md|dm-|nbd)/.test(device)
}

function ageOf(
  backup: BackupFacts,
  { live, known }: Evidence,
): Pick<Verdict, 'stale' | 'resurrects'> {
  const newest = live ?? known
  if (newest === undefined) return { stale: false, resurrects: [] }
  const resurrects = removedKeyslots(backup.keyslots, newest.keyslots)
  const older = newest.digest !== backup.digest && backup.seqid < newest.seqid
  const superseded = known !== undefined && known.digest !== backup.digest
  const behind = superseded && backup.generation < known.generation
  return { stale: older || behind || resurrects.length > 0, resurrects }
}

function sameSet(a: readonly string[], b: readonly string[] | undefined): boolean {
  return b !== undefined && a.length === new Set(b).size && a.every((item) => b.includes(item))
}

function refusal(backup: BackupFacts, resurrects: readonly KeyslotIdentity[]): Error {
  const what = resurrects.length === 0 ? 'no keyslot' : `the keyslots ${resurrects.join(', ')}`
  return vaultFault(
    'vault.backup_stale',
    `the backup of ${backup.time} is older than the header known since; it would resurrect ${what}`,
    {
      hint: `use the newest backup, or name what comes back: --accept-stale '${resurrects.join(',')}'`,
      details: { resurrects },
    },
  )
}

function foreign(device: string, reason: string): Error {
  return vaultFault('vault.backup_foreign', `this is not the header of ${device}: ${reason}`, {
    hint: 'if you are sure whose device it is, say so: --expect UUID',
  })
}
