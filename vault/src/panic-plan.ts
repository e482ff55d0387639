import { createHash } from 'node:crypto'
import { canonicalJson } from '@holdfast/base'
import type { PanicLevel, PanicStep } from './panic-record.ts'

// Decides what a wipe does and says what it leaves. Pure. The order puts first what matters most if
// there is time for one thing only: the keyslots, then the rest of the header, then the copies.

/** What is known before a wipe. */
export interface PanicFacts {
  uuid: string
  device: string
  header?: string
  deviceMapper: boolean
  /** Names under /dev/mapper through which the data is readable now. */
  mappings: readonly string[]
  /** Keyslots in the header; undefined when no copy of it is intact. */
  keyslots: number | undefined
  /** Bytes at the start of the header's device that a wipe overwrites. */
  area: number
  /** A sealed backup of the header as it is now, checked in form; what it opens with. */
  fresh: { name: string; policy: string } | undefined
  /** Names of all sealed backups, broken ones included. */
  backups: readonly string[]
  /** Names of files that hold a header in the clear. */
  images: readonly string[]
  /** Copies that left Holdfast's reach, as far as it was told. */
  exports: readonly { what: string; time: string }[]
}

export interface Copy {
  what: string
  why: string
}

export interface PanicPlan {
  uuid: string
  device: string
  level: PanicLevel
  steps: readonly PanicStep[]
  destroys: readonly string[]
  survives: readonly string[]
  unreachable: readonly Copy[]
  /** How the volume comes back; undefined when nothing brings it back. */
  wayBack: string | undefined
  notes: readonly string[]
}

/** Plans a wipe of one level. */
export function planPanic(level: PanicLevel, facts: PanicFacts): PanicPlan {
  const { uuid, device } = facts
  return {
    uuid,
    device,
    level,
    steps: stepsOf(level, facts),
    destroys: destroysOf(level, facts),
    survives: survivesOf(level, facts),
    unreachable: level === 1 ? [] : unreachableOf(level, facts),
    wayBack: wayBackOf(level, facts),
    notes: notesOf(facts),
  }
}

/** Identifies a plan: what is confirmed is exactly what is done. */
export function planDigest(plan: PanicPlan): string {
  return createHash('sha256').update(canonicalJson(plan)).digest('hex')
}

function stepsOf(level: PanicLevel, facts: PanicFacts): PanicStep[] {
  const steps: PanicStep[] = facts.mappings.map((name) => ({ do: 'close_mapping', name }))
  if (level >= 2) {
    if ((facts.keyslots ?? 0) > 0) steps.push({ do: 'erase_keyslots' })
    steps.push({ do: 'overwrite_header', length: facts.area }, { do: 'destroy_images' })
  }
  if (level === 3) steps.push({ do: 'destroy_backups' }, { do: 'destroy_records' })
  return [...steps, { do: 'verify' }]
}

function destroysOf(level: PanicLevel, facts: PanicFacts): string[] {
  if (level === 1) return []
  const place = facts.header ?? facts.device
  const slots =
    facts.keyslots === undefined ? 'whatever is left of' : `${facts.keyslots} keyslots of`
  const destroys = [
    `${slots} the header of ${facts.device}, with all tokens`,
    `the first ${facts.area} bytes of ${place}`,
    ...facts.images.map((name) => `the header image ${name}`),
  ]
  if (level === 2) return destroys
  const backups = facts.backups.map((name) => `the sealed header backup ${name}`)
  return [...destroys, ...backups, 'all records of the volume except the audit log']
}

function survivesOf(level: PanicLevel, facts: PanicFacts): string[] {
  const trail = ['the audit log', 'the receipts of wipes']
  if (level === 1) {
    return ['the data', 'the header with all keyslots and tokens', 'all backups', ...trail]
  }
  const data = `the encrypted data on ${facts.device}`
  if (level === 3) return [`${data}, without any key`, ...trail]
  return [data, ...facts.backups.map((name) => `the sealed header backup ${name}`), ...trail]
}

function unreachableOf(level: PanicLevel, facts: PanicFacts): Copy[] {
  const exported = facts.exports.map(({ what, time }) => ({ what, why: `it left on ${time}` }))
  const others = [
    {
      what: 'header copies made by other programs: luksHeaderBackup files, clevis’s while it binds',
      why: 'Holdfast keeps no list of them',
    },
    { what: 'images and snapshots of the disk', why: 'Holdfast did not make them' },
    {
      what: 'old blocks that flash or a copy-on-write file system keeps',
      why: 'overwriting reaches only what the device shows',
    },
  ]
  const memory = facts.mappings.map((name) => ({
    what: `the volume key in the kernel's memory, if /dev/mapper/${name} could not be closed`,
    why: 'a busy mapping keeps its key until the machine is switched off',
  }))
  const elsewhere = {
    what: 'header backups that were copied out of the state directory',
    why: 'Holdfast sees its own directory only',
  }
  return [...memory, ...exported, ...(level === 3 ? [elsewhere] : []), ...others]
}

function wayBackOf(level: PanicLevel, { fresh }: PanicFacts): string | undefined {
  if (level === 1) return 'open the volume as always'
  if (level === 3 || fresh === undefined) return undefined
  return `restore ${fresh.name}, which opens for ${fresh.policy}`
}

function notesOf({ deviceMapper, mappings, keyslots }: PanicFacts): string[] {
  const notes: string[] = []
  if (!deviceMapper) notes.push('this kernel has no device-mapper: nothing is mapped')
  else if (mappings.length === 0) notes.push('the volume is not mapped')
  if (keyslots === undefined) notes.push('no intact header was found on the device')
  return notes
}
