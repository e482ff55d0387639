import { cp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock } from '@holdfast/base'
import { startPostgres } from '@holdfast/coordinator/local-postgresql'
import { keyRoutes } from '@holdfast/protocol'
import { answer, answerFile, fetchRequest, type HolderKey, handIn } from './ceremony-holder.ts'
import { begin, isNow, loseHostKey, type Scene, setCoordinator } from './ceremony-scene.ts'
import { CoordinatorProcess, type CoordinatorStatus } from './coordinator-process.ts'
import type { Drill, Stage } from './drill.ts'

/** People answer over hours; the machine does not wait for them. */
export const recoveryRestarted: Drill = {
  name: 'recovery-restarted',
  title: 'The coordinator dies in the middle of its recovery, twice',
  summary:
    'Killed after the first of three answers and again while the last one is on its way. The answers that were acknowledged are there, nobody has to answer twice, and it opens.',
  run: async (stage) => {
    const { timeline, cleanup } = stage
    const scene = await setCoordinator(stage, { holders: 5, threshold: 3 })
    const { coordinator } = scene
    const [alice, bob, carol] = three(scene)
    await loseHostKey(stage, coordinator)
    const anybody = cleanup.use(coordinator.client())
    const { id } = await begin(anybody, 'recovery')
    await answer(anybody, id, alice)
    await coordinator.kill()
    timeline.note('killed after the first answer')
    await coordinator.start()
    const status = await coordinator.status()
    timeline.proves(
      'the ceremony goes on where it was: two are missing',
      status.ceremony?.id === id && status.ceremony.missing === 2,
      { answered: status.ceremony?.answered ?? [] },
    )
    await timeline.refuses('who has answered need not again', ['ceremony.answer_duplicate'], () =>
      answer(anybody, id, alice),
    )
    await answer(anybody, id, bob)
    const request = await fetchRequest(anybody, id, carol.name)
    const file = await answerFile(carol, request, coordinator.identity)
    // Held still, so that it is killed before it has heard the answer; the crash tests do it at each step.
    const acknowledged = await coordinator.whileStill(async () => {
      const last = handIn(anybody, id, file).catch(() => undefined)
      await coordinator.kill()
      return (await last) !== undefined
    })
    timeline.note('killed while the last answer was on its way', { acknowledged })
    await coordinator.start()
    const { ceremony } = await coordinator.status()
    const lost = !acknowledged && ceremony?.id === id && ceremony.missing === 1
    timeline.proves('an answer that was lost was not acknowledged', lost, {
      answered: ceremony?.answered ?? [],
    })
    await answer(anybody, id, carol)
    await isNow(stage, 'it opens, in the same ceremony', coordinator, { state: 'running' })
  },
}

function three({ keys }: Scene): [HolderKey, HolderKey, HolderKey] {
  const [first, second, third] = keys
  if (first === undefined || second === undefined || third === undefined)
    throw new Error('a scene of five has three')
  return [first, second, third]
}

/** Two instances side by side on one database. */
export const recoveryTwoInstances: Drill = {
  name: 'recovery-two-instances',
  title: 'The holders answer at two instances, and one of them dies',
  summary:
    'Two coordinators on one PostgreSQL, both sealed. Answers go to either; one is killed in the middle; the other one opens with what both have taken, and the killed one follows when it is back.',
  run: async (stage) => {
    const { timeline, cleanup } = stage
    const [one, two, scene] = await twoInstances(stage)
    const [alice, bob, carol] = three(scene)
    const [atOne, atTwo] = [cleanup.use(one.client()), cleanup.use(two.client())]
    const { id } = await begin(atOne, 'recovery')
    await answer(atOne, id, alice)
    const second = await answer(atTwo, id, bob)
    timeline.proves('one ceremony, whichever instance is asked', second.answered.length === 2, {
      answered: second.answered.map(({ holder }) => holder),
    })
    await one.kill()
    timeline.note('instance one is killed')
    await timeline.refuses(
      'instance two knows what instance one took',
      ['ceremony.answer_duplicate'],
      () => answer(atTwo, id, alice),
    )
    await answer(atTwo, id, carol)
    await isNow(stage, 'instance two opens', two, { state: 'running' })
    await one.start()
    const { state, instance } = await settles(stage, one, 'running')
    timeline.proves('instance one follows when it is back', state === 'running', { instance })
  },
}

/** Two sealed instances of one cluster; the second one has what `coordinator join` copies. */
async function twoInstances(
  stage: Stage,
): Promise<[CoordinatorProcess, CoordinatorProcess, Scene]> {
  const { directory, timeline, cleanup } = stage
  const database = cleanup.use(await startPostgres())
  const store = join(directory, 'postgresql')
  await writeFile(store, `${database.url}\n`, { mode: 0o600 })
  const scene = await setCoordinator(stage, { holders: 5, threshold: 3, store })
  const one = scene.coordinator
  // What the holders have just handed in is kept a minute for other instances: not in this drill.
  await scene.owner.call(keyRoutes.rotate)
  const second = { name: 'two', directory: join(directory, 'two'), command: stage.coordinator }
  await one.stop()
  for (const file of ['identity.pem', 'initialised'])
    await cp(join(one.directory, file), join(second.directory, file), { recursive: true })
  await rm(join(one.directory, 'host.key'))
  await one.start()
  const two = cleanup.use(await CoordinatorProcess.launch({ ...second, store }))
  for (const each of [one, two])
    await isNow(stage, `instance ${each.name} is sealed`, each, { state: 'recovery' })
  timeline.proves('both have one identity', one.identity === two.identity, {
    postgresql: database.port,
    identity: one.identity,
  })
  return [one, two, scene]
}

/** Looks until the state is what is waited for, or the drill's time is up. */
async function settles(
  { signal }: Stage,
  coordinator: CoordinatorProcess,
  state: string,
): Promise<CoordinatorStatus> {
  for (;;) {
    const status = await coordinator.status()
    if (status.state === state) return status
    await systemClock.sleep(200, signal)
  }
}
