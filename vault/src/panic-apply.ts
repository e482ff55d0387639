import { basename, join } from 'node:path'
import type { JsonObject } from '@holdfast/base'
import { closeMapping, erase, headerPath, luksType, type VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { backupDirectory } from './header-backup.ts'
import { headerImages, mappingsOf } from './panic-facts.ts'
import type { PanicJournal, PanicStep, StepOutcome } from './panic-record.ts'
import { vaultDirectory } from './state.ts'
import { filesBelow, intactCopies, overwriteStart, shredAll } from './wipe.ts'

// Carries out the steps of a wipe, one at a time. Each looks first and may be run again: after a
// crash it is repeated from its beginning. A step gives the evidence for the receipt.

type Result = Pick<StepOutcome, 'result' | 'evidence'>

/** Files of a volume's state directory that outlive a wipe of level 3. */
const kept = ['audit.log', 'lock']

/** Does one step. @throws whatever kept it from being done */
export async function applyStep(
  state: string,
  journal: PanicJournal,
  step: PanicStep,
): Promise<Result> {
  const { uuid, device, header } = journal
  const volume: VolumeRef = header === undefined ? { device } : { device, header }
  switch (step.do) {
    case 'close_mapping':
      return await closeOne(uuid, step.name)
    case 'erase_keyslots':
      return await eraseKeyslots(volume)
    case 'overwrite_header': {
      const evidence = await overwriteStart(headerPath(volume), step.length)
      return { result: 'done', evidence: { ...evidence } }
    }
    case 'destroy_images':
      return await shred(await headerImages(state, uuid))
    case 'destroy_backups':
      return await shred(await filesBelow(backupDirectory(state, uuid)))
    case 'destroy_records':
      return await shred(await recordsOf(state, uuid))
    case 'verify':
      return { result: 'done', evidence: await verify(state, journal, volume) }
    default:
      return step satisfies never
  }
}

async function closeOne(uuid: string, name: string): Promise<Result> {
  if (!(await mappingsOf(uuid)).includes(name)) return { result: 'nothing_to_do', evidence: {} }
  await closeMapping(name)
  return { result: 'done', evidence: { closed: name } }
}

async function eraseKeyslots(volume: VolumeRef): Promise<Result> {
  if ((await luksType(volume)) === undefined) return { result: 'nothing_to_do', evidence: {} }
  await erase(volume)
  return { result: 'done', evidence: { program: 'cryptsetup erase' } }
}

async function shred(paths: readonly string[]): Promise<Result> {
  const shredded = await shredAll(paths)
  const result = shredded.length === 0 ? 'nothing_to_do' : 'done'
  return { result, evidence: { shredded: shredded.map((path) => basename(path)) } }
}

async function recordsOf(state: string, uuid: string): Promise<string[]> {
  const folder = vaultDirectory(state, uuid)
  const spared = kept.map((name) => join(folder, name))
  return (await filesBelow(folder)).filter((path) => !spared.includes(path))
}

/** Looks at everything once more. @throws Fault vault.wipe_unfinished when something is left */
async function verify(
  state: string,
  journal: PanicJournal,
  volume: VolumeRef,
): Promise<JsonObject> {
  const { uuid, level, steps } = journal
  const mappings = await mappingsOf(uuid)
  const tolerated = journal.done.some(({ result }) => result === 'failed')
  const left: string[] = tolerated ? [] : mappings.map((name) => `/dev/mapper/${name}`)
  if (level === 1) return done(left, { mappings })
  const copies = await intactCopies(headerPath(volume))
  const type = (await luksType(volume)) ?? 'none'
  if (copies > 0 || type !== 'none') left.push(`a LUKS header on ${headerPath(volume)}`)
  left.push(...(await headerImages(state, uuid)))
  if (steps.some((step) => step.do === 'destroy_records'))
    left.push(...(await recordsOf(state, uuid)))
  return done(left, { mappings, headerCopies: copies, luks: type })
}

function done(left: readonly string[], evidence: JsonObject): JsonObject {
  if (left.length === 0) return evidence
  throw vaultFault('vault.wipe_unfinished', `still there after the wipe: ${left.join(', ')}`)
}
