import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory } from '@holdfast/base'
import { backupFile, prepareClaim, restoreBackup, verifyBackup } from '@holdfast/coordinator'
import { keyRoutes, statusRoutes, userRoutes } from '@holdfast/protocol'
import { answer } from './ceremony-holder.ts'
import { begin, claim, isNow, type Scene, setCoordinator } from './ceremony-scene.ts'
import { CoordinatorProcess } from './coordinator-process.ts'
import type { Drill, Stage } from './drill.ts'

export const stateDismissed: Drill = {
  name: 'state-dismissed',
  title: 'An old state is given up, with and without its holders',
  summary:
    'One holder alone, a guessed token, or the right token without the words changes nothing. Two holders give the state up; later, without any holder, the token of the console does. Both times it is archived first, and the archive still opens to its holders.',
  run: async (stage) => {
    const { timeline } = stage
    const scene = await setCoordinator(stage)
    const { coordinator, owner } = scene
    const { cluster = '' } = await coordinator.status()
    await owner.call(keyRoutes.seal)
    await byHolders(stage, scene)
    const first = await archives(coordinator)
    const whole = await isOf(first[0], cluster)
    timeline.proves('the state was archived, signed and whole', whole, {
      archives: first.length,
    })
    const token = await claim(coordinator)
    using next = coordinator.client({ token })
    await isNow(stage, 'it can be claimed anew', coordinator, { state: 'ready' })
    const { entries } = await next.call(userRoutes.audit, { query: { limit: 100 } })
    const told = entries.some(({ action }) => action === 'coordinator.dismissed')
    timeline.proves('the audit log goes on and tells of it', told, { entries: entries.length })
    await next.call(keyRoutes.seal)
    await byToken(stage, coordinator)
    timeline.proves('it, too, was archived', (await archives(coordinator)).length === 2)
    await archiveOpens(stage, scene, first[0] ?? '')
  },
}

async function byHolders(stage: Stage, { coordinator, owner, keys }: Scene): Promise<void> {
  const { timeline } = stage
  const [alice, bob] = keys
  if (!alice || !bob) throw new Error('there are three holders')
  const { id } = await begin(owner, 'dismissal')
  await answer(owner, id, alice)
  const sealed = { state: 'recovery', reason: 'key_missing' }
  await isNow(stage, 'one holder alone changes nothing', coordinator, sealed)
  const last = await answer(owner, id, bob)
  timeline.proves('two holders give it up', last.state === 'done')
  await isNow(stage, 'it is new, and nobody has it', coordinator, {
    state: 'uninitialised',
    reason: 'claim_needed',
  })
}

async function byToken(stage: Stage, coordinator: CoordinatorProcess): Promise<void> {
  const { timeline } = stage
  using anybody = coordinator.client()
  const user = { user: 'stranger', password: 'long enough for the rules' }
  const giveUp = { recoveryOfOldState: 'give up' as const }
  const tried = async (token: string, words: object) =>
    await anybody.call(statusRoutes.claim, { body: { token, ...user, ...words } })
  await timeline.refuses('without a token nobody gives it up', ['coordinator.claim_refused'], () =>
    tried('', giveUp),
  )
  await prepareClaim(coordinator.directory)
  timeline.note('somebody at its machine makes the token of the console')
  await timeline.refuses('a guessed one does not', ['coordinator.claim_refused'], () =>
    tried('guessed', giveUp),
  )
  const token = await readFile(coordinator.claimToken, 'utf8')
  await timeline.refuses(
    'nor the right one without the words',
    ['coordinator.already_claimed'],
    () => tried(token, {}),
  )
  await isNow(stage, 'so far nothing has changed', coordinator, { state: 'recovery' })
  await claim(coordinator, giveUp)
  await isNow(stage, 'with both it is given up and claimed at once', coordinator, {
    state: 'ready',
  })
  await timeline.refuses('the token works once', ['coordinator.not_in_this_state'], () =>
    tried(token, giveUp),
  )
}

/** The files of archived backups, oldest first. */
async function archives({ directory }: CoordinatorProcess): Promise<string[]> {
  const folder = join(directory, 'archive')
  const names = await readdir(folder)
  const at = (name: string) => Number(/-(\d+)-[0-9a-f]+\.backup$/.exec(name)?.[1])
  return names.sort((a, b) => at(a) - at(b)).map((name) => join(folder, name))
}

async function isOf(file: string | undefined, cluster: string): Promise<boolean> {
  return file !== undefined && (await verifyBackup(backupFile(file))).cluster === cluster
}

/** Regretted: the archive is restored elsewhere, and its holders open it. */
async function archiveOpens(
  stage: Stage,
  { coordinator, keys }: Scene,
  archive: string,
): Promise<void> {
  // On the same machine the host key would open it without anybody.
  await rm(join(coordinator.directory, 'host.key'))
  const directory = join(stage.directory, 'regretted')
  await ensureDirectory(directory)
  const path = join(directory, 'state.db')
  await restoreBackup(backupFile(archive), { directory, store: { engine: 'sqlite', path } })
  const place = { name: 'regretted', directory, command: stage.coordinator }
  const restored = stage.cleanup.use(await CoordinatorProcess.launch(place))
  using anybody = restored.client()
  const { id } = await begin(anybody, 'recovery')
  for (const key of keys.slice(1)) await answer(anybody, id, key)
  using pinned = restored.client({ identity: coordinator.identity })
  const { state } = await pinned.call(statusRoutes.status)
  const step = 'restored elsewhere, the archive opens to its holders under its own identity'
  stage.timeline.proves(step, state === 'running', { state })
}
