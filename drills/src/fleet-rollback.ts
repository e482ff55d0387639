import { join } from 'node:path'
import { ensureDirectory, removeDurable, writeDurable } from '@holdfast/base'
import { backupFile, restoreBackup } from '@holdfast/coordinator'
import { keyRoutes, statusRoutes } from '@holdfast/protocol'
import { answer, softwareKey } from './ceremony-holder.ts'
import { begin } from './ceremony-scene.ts'
import type { ControlPlane } from './control-plane.ts'
import { CoordinatorProcess } from './coordinator-process.ts'
import type { Drill, Stage } from './drill.ts'
import { setPlane } from './fleet-scene.ts'

/** A new host has witnessed nothing; a node has. */
export const oldBackupRestored: Drill = {
  name: 'old-backup-restored',
  title: 'A backup is restored that is older than what a node has seen',
  summary:
    'The machine of the coordinator is lost, and the only backup is from before a change of the data key. The holders open it on a new machine, a node comes back and shows a later generation, and it is not run any further until the holders accept it.',
  run: async (stage) => {
    const { timeline, signal } = stage
    const plane = await setPlane(stage)
    const node = await plane.startNode()
    await plane.enrol(node, { invite: await plane.invite(1), genesis: true, signal })
    const backup = join(stage.directory, 'fleet.backup')
    await writeDurable(backup, plane.client.receive(keyRoutes.backup))
    const { generation: seen } = await plane.client.call(keyRoutes.rotate)
    await node.stop()
    await node.start()
    await plane.until(
      'the node has seen the new generation',
      async () => {
        const { connected, report } = await plane.view(node)
        return connected && report?.generation === seen ? true : undefined
      },
      signal,
    )
    timeline.note('a backup is made, then the data key is replaced, and a node has seen it', {
      seen,
    })
    await node.stop()
    const { identity } = plane.coordinator
    const restored = await restoreElsewhere(stage, plane, backup)
    using anybody = restored.client()
    using pinned = restored.client({ identity })
    const status = async () => await pinned.call(statusRoutes.status)
    const recovery = await begin(anybody, 'recovery')
    for (const holder of plane.holders.slice(0, 2))
      await answer(anybody, recovery.id, softwareKey(holder))
    const before = await status()
    timeline.proves('restored elsewhere, two holders open it', before.state === 'running', {
      generation: before.generation ?? 0,
    })
    await node.start()
    const suspected = await plane.until(
      'a rollback is suspected',
      async () => {
        const found = await status()
        return found.reason === 'rollback_suspected' ? found : undefined
      },
      signal,
    )
    timeline.proves('a node shows what it has seen, and it stops', true, {
      state: suspected.state,
      reason: suspected.reason,
    })
    const { id } = await begin(pinned, 'rollback')
    for (const holder of plane.holders.slice(1)) await answer(pinned, id, softwareKey(holder))
    const after = await status()
    const above = after.state === 'running' && (after.generation ?? 0) > seen
    timeline.proves('two holders accept it, and it goes on above that', above, {
      seen,
      generation: after.generation ?? 0,
    })
  },
}

/** On a new machine at the old address: the host key of the old one is gone with it. */
async function restoreElsewhere(
  stage: Stage,
  { coordinator: lost }: ControlPlane,
  backup: string,
): Promise<CoordinatorProcess> {
  await lost.kill()
  const directory = join(stage.directory, 'restored')
  await ensureDirectory(directory)
  const path = join(directory, 'state.db')
  await removeDurable(join(lost.directory, 'host.key'))
  await restoreBackup(backupFile(backup), { directory, store: { engine: 'sqlite', path } })
  const port = Number(new URL(lost.url).port)
  const place = { name: 'restored', directory, command: stage.coordinator, port }
  return stage.cleanup.use(await CoordinatorProcess.launch(place))
}
