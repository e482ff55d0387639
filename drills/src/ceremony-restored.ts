import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, writeDurable } from '@holdfast/base'
import { backupFile, restoreBackup, verifyBackup } from '@holdfast/coordinator'
import { keyRoutes, manifestRoutes } from '@holdfast/protocol'
import { answer } from './ceremony-holder.ts'
import { begin, isNow, type Scene, setCoordinator, signIn } from './ceremony-scene.ts'
import { CoordinatorProcess } from './coordinator-process.ts'
import type { Drill, Stage } from './drill.ts'
import { setServers } from './scene.ts'

/** Somebody puts a copy of the state back that is older than what this host has seen. */
export const oldStatePutBack: Drill = {
  name: 'old-state-put-back',
  title: 'An old copy of the state is put back',
  summary:
    'The database of last week opens with the host key that is still there, and yet it is not run: a rollback is suspected, through restarts, until two of three holders accept it; it then goes on as a generation above all that was ever seen.',
  run: async (stage) => {
    const { timeline } = stage
    const scene = await setCoordinator(stage)
    const { coordinator, owner, keys } = scene
    await coordinator.stop()
    const [now, old] = ['state.db', 'old.db'].map((name) => join(coordinator.directory, name))
    if (now === undefined || old === undefined) throw new Error('there are two names')
    await cp(now, old)
    await coordinator.start()
    const { generation: seen } = await owner.call(keyRoutes.rotate)
    await coordinator.kill()
    for (const rest of ['-wal', '-shm', '']) await rm(`${now}${rest}`, { force: true })
    await cp(old, now)
    timeline.note('the data key was replaced; then the copy from before is put back', { seen })
    await coordinator.start()
    const suspected = { state: 'recovery', reason: 'rollback_suspected' }
    await isNow(stage, 'it opens by itself, and yet it is not run', coordinator, suspected)
    await timeline.refuses('nothing is served from it', ['coordinator.not_in_this_state'], () =>
      owner.call(manifestRoutes.get),
    )
    const { id } = await begin(owner, 'rollback')
    const [alice, , carol] = keys
    if (!alice || !carol) throw new Error('there are three holders')
    await answer(owner, id, alice)
    await coordinator.kill()
    await coordinator.start()
    await isNow(stage, 'one holder and a restart do not change that', coordinator, suspected)
    await answer(owner, id, carol)
    const after = await isNow(stage, 'two holders accept it', coordinator, { state: 'running' })
    const above = (after.generation ?? 0) > seen
    timeline.proves('it goes on above all that was seen', above, {
      seen,
      generation: after.generation ?? 0,
    })
    await coordinator.kill()
    await coordinator.start()
    await isNow(stage, 'and opens by itself again', coordinator, { state: 'running' })
  },
}

/** Fire: host, key server, TPM, everything that opened it by itself. A backup was elsewhere. */
export const onlyHoldersLeft: Drill = {
  name: 'only-holders-left',
  title: 'Every automatic way is lost, with the machine',
  summary:
    'Disk, host key and key server are gone; a backup and the holders are left. Restored, it is in recovery under a temporary identity; two holders open it and bring the identity back that clients have pinned; dead ways are replaced and it opens by itself again.',
  run: async (stage) => {
    const { timeline, cleanup } = stage
    const scene = await setCoordinator(stage)
    const { coordinator, owner, keys } = scene
    const [server] = await setServers(stage, ['tang'])
    if (server === undefined) throw new Error('a server that was set is there')
    const config = await server.pin()
    await owner.call(keyRoutes.add, { body: { kind: 'tang', config } })
    const backup = join(stage.directory, 'fleet.backup')
    await writeDurable(backup, owner.receive(keyRoutes.backup))
    const { ways, identity } = await verifyBackup(backupFile(backup))
    timeline.note('a backup is made and carried away', {
      identity,
      ways: ways.map(({ kind }) => kind),
    })
    await coordinator.kill()
    await server.kill()
    for (const lost of [coordinator.directory, server.directory])
      await rm(lost, { recursive: true, force: true })
    timeline.note('the machine and the key server are destroyed')
    const restored = await restore(stage, coordinator, backup)
    using pinned = restored.client({ identity: coordinator.identity })
    await timeline.refuses(
      'clients do not take it for the old one',
      ['link.identity_mismatch'],
      () => pinned.call(manifestRoutes.get),
    )
    const anybody = cleanup.use(restored.client())
    const { id } = await begin(anybody, 'recovery')
    const [, bob, carol] = keys
    if (!bob || !carol) throw new Error('there are three holders')
    for (const key of [bob, carol]) await answer(anybody, id, key)
    await replaceWays(stage, scene, restored)
  },
}

/** A new coordinator from a backup, on another machine but at the same address. */
async function restore(
  stage: Stage,
  lost: CoordinatorProcess,
  backup: string,
): Promise<CoordinatorProcess> {
  const directory = join(stage.directory, 'restored')
  await ensureDirectory(directory)
  const path = join(directory, 'state.db')
  const pinned = lost.identity
  await restoreBackup(backupFile(backup), { directory, store: { engine: 'sqlite', path }, pinned })
  const port = Number(new URL(lost.url).port)
  const place = { name: 'restored', directory, command: stage.coordinator, port }
  const restored = stage.cleanup.use(await CoordinatorProcess.launch(place))
  await isNow(stage, 'restored, it is in recovery', restored, {
    state: 'recovery',
    reason: 'key_missing',
  })
  stage.timeline.proves('under a temporary identity', restored.identity !== pinned, {
    identity: restored.identity,
  })
  return restored
}

/** The owner comes back with the old pin and the password; tokens may have been revoked since. */
async function replaceWays(
  stage: Stage,
  { owner: before, coordinator, password }: Scene,
  restored: CoordinatorProcess,
): Promise<void> {
  const { timeline, cleanup } = stage
  await timeline.refuses('no token of the backup is good', ['user.not_signed_in'], () =>
    before.call(keyRoutes.list),
  )
  const { identity } = coordinator
  using anybody = restored.client({ identity })
  const token = await signIn(anybody, password)
  const owner = cleanup.use(restored.client({ token, identity }))
  const { ways } = await owner.call(keyRoutes.list)
  timeline.proves('the owner signs in, under the pinned identity', ways.length === 3, { identity })
  const dead = ways.filter(({ kind }) => kind !== 'holders')
  for (const { id, kind } of dead)
    await timeline.refuses(`the old ${kind} is dead`, ['coordinator.way_unproven'], () =>
      owner.call(keyRoutes.prove, { params: { id } }),
    )
  await owner.call(keyRoutes.add, { body: { kind: 'host-key', config: {} } })
  for (const { id } of dead) await owner.call(keyRoutes.remove, { params: { id } })
  await restored.kill()
  await restored.start()
  await isNow(stage, 'with a new way it opens by itself', restored, { state: 'running' })
}
