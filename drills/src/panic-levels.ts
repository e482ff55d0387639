import { copyFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import {
  describePanic,
  executePanic,
  listBackups,
  noteExport,
  type PanicLevel,
  preparePanic,
  type Receipt,
  readBackup,
  restoreHeader,
} from '@holdfast/vault'
import type { Drill, Stage } from './drill.ts'
import { latestBackup, withHolders } from './header-destroyed.ts'
import type { RunningFleet } from './local-fleet.ts'
import { opens, setFleet, unattended } from './scene.ts'

/** Lock, destroy the keys and come back, destroy everything and never come back. */
export const panicLevels: Drill = {
  name: 'panic-levels',
  title: 'Panic at three levels',
  summary:
    'Level 1 locks and keeps the keys. Level 2 destroys them; the holders bring the volume back from its sealed header backup. Level 3 destroys the backups as well: nothing that is left brings it back, and the receipt names the copy that was taken away before.',
  run: async (stage) => {
    const fleet = await setFleet(stage)
    const machine = unattended(fleet.volume.stateDirectory)
    const { device } = fleet.volume
    await lockOnly(stage, fleet)
    await opens(stage, 'after level 1 the volume opens again', machine, fleet.volume)

    const before = await latestBackup(fleet, device)
    await wipe(stage, fleet, 2)
    await isGone(stage, fleet, 2)
    await restoreHeader(withHolders(fleet, 2), { device }, before)
    await opens(stage, 'two holders brought it back after level 2', machine, fleet.volume)

    const smuggled = await smuggleBackup(stage, fleet)
    const { uuid, unreachable } = await wipe(stage, fleet, 3)
    await isGone(stage, fleet, 3)
    const named = unreachable.some(({ what }) => what.includes(smuggled))
    stage.timeline.proves('the receipt names the copy it could not reach', named, { unreachable })
    const { backups } = await listBackups(fleet.volume.stateDirectory, uuid)
    stage.timeline.proves('no header backup is left', backups.length === 0)
    await neverComesBack(stage, fleet, smuggled)
  },
}

async function lockOnly(stage: Stage, fleet: RunningFleet): Promise<void> {
  const plan = await describePanic(fleet.deps, fleet.volume, 1)
  stage.timeline.note('a dry run of level 1', { plan: { ...plan } })
  await wipe(stage, fleet, 1)
}

async function wipe(
  { timeline }: Stage,
  { deps, volume }: RunningFleet,
  level: PanicLevel,
): Promise<Receipt> {
  const { plan, code } = await preparePanic(deps, volume, level)
  await timeline.refuses(
    `level ${level} is not done without its code`,
    ['vault.confirmation_wrong'],
    () => executePanic(deps, volume, plan.uuid, 'AAAA-AAAA'),
  )
  const { receipt } = await executePanic(deps, volume, plan.uuid, code)
  timeline.note(`level ${level} is done`, { receipt: { ...receipt } })
  return receipt
}

async function isGone(stage: Stage, fleet: RunningFleet, level: PanicLevel): Promise<void> {
  const machine = unattended(fleet.volume.stateDirectory)
  await stage.timeline.refuses(
    `after level ${level} nothing opens the volume`,
    ['vault.not_luks', 'vault.slot_unbound'],
    () => opens(stage, 'it opens', machine, fleet.volume),
  )
}

/** A copy of the sealed backup that somebody took away: Holdfast cannot reach it. */
async function smuggleBackup({ directory, timeline }: Stage, fleet: RunningFleet): Promise<string> {
  const { path, facts } = await latestBackup(fleet, fleet.volume.device)
  const copy = join(directory, basename(path))
  const { uuid } = facts
  await copyFile(path, copy)
  await copyFile(path.replace(/\.jwe$/, '.json'), copy.replace(/\.jwe$/, '.json'))
  await noteExport(fleet.volume.stateDirectory, uuid, `header backup copied to ${copy}`, Date.now())
  timeline.note('somebody takes a copy of the sealed header backup away, and says so', { copy })
  return copy
}

async function neverComesBack(
  { timeline }: Stage,
  fleet: RunningFleet,
  smuggled: string,
): Promise<void> {
  const backup = await readBackup(smuggled)
  await timeline.refuses(
    'all three holders are refused here, even with the copy that was taken away',
    ['vault.destroyed'],
    () => restoreHeader(withHolders(fleet, 3), fleet.volume, backup),
  )
  const elsewhere = { ...withHolders(fleet, 2), stateDirectory: join(fleet.directory, 'elsewhere') }
  const { uuid: expected } = backup.facts
  const { proof } = await restoreHeader(elsewhere, fleet.volume, backup, { expected })
  timeline.proves(
    'BUT two holders and the copy bring it back where the wipe is not known: so the receipt names it',
    proof !== undefined,
  )
}
