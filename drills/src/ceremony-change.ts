import { join } from 'node:path'
import { ceremonyRoutes, keyRoutes, type ManifestInput } from '@holdfast/protocol'
import {
  answer,
  answerFile,
  type CeremonyView,
  fetchRequest,
  handIn,
  softwareKey,
} from './ceremony-holder.ts'
import {
  begin,
  isNow,
  manifestOf,
  publicKeys,
  type Scene,
  setCoordinator,
  setManifest,
} from './ceremony-scene.ts'
import type { Drill, Stage } from './drill.ts'
import { type LocalHolder, makeHolders } from './holders.ts'

/** Two phases, a crash after each step, and the old holders count until the very last. */
export const holdersChanged: Drill = {
  name: 'holders-changed',
  title: 'Another circle of holders, with crashes in between',
  summary:
    'The old holders approve a manifest with new ones. Until two of the three new ones have proven their shares the old ones still open the coordinator, whatever is killed meanwhile; from then on only the new ones do.',
  run: async (stage) => {
    const { timeline } = stage
    const scene = await setCoordinator(stage)
    const { coordinator, owner, keys } = scene
    const people = await newPeople(stage, scene)
    const fresh = people.map(softwareKey)
    const [alice, bob] = keys
    const [, heidi, ivan] = fresh
    if (!alice || !bob || !heidi || !ivan) throw new Error('there are three old and three new')
    const manifest = manifestOf(2, publicKeys(people))
    const approval = await setManifest(owner, manifest)
    timeline.proves('a new circle needs the approval of the old one', approval.kind === 'manifest')
    for (const key of [alice, bob]) await answer(owner, approval.id, key)
    await crash(stage, scene, 'killed after the approval')
    const change = await changeOf(scene, manifest)
    timeline.proves('the change is begun: nobody new has proven a share', isBegun(change), {
      holders: change.holders,
      missing: change.threshold - change.answered.length,
    })
    await answer(owner, change.id, heidi)
    await crash(stage, scene, 'killed after the first of the new proofs')
    await owner.call(keyRoutes.seal)
    const recovery = await begin(owner, 'recovery')
    await timeline.refuses('a new holder does not count yet', ['ceremony.holder_unknown'], () =>
      answer(owner, recovery.id, ivan),
    )
    const kept = await answerFile(
      alice,
      await fetchRequest(owner, recovery.id, alice.name),
      coordinator.identity,
    )
    for (const key of [alice, bob]) await answer(owner, recovery.id, key)
    await isNow(stage, 'the old holders still open it', coordinator, { state: 'running' })
    const proven = await owner.call(ceremonyRoutes.get, { params: { id: change.id } })
    timeline.proves('the proof from before the crash stands', proven.answered.length === 1, {
      answered: proven.answered.map(({ holder }) => holder),
    })
    const done = await answer(owner, change.id, ivan)
    timeline.proves('the second proof makes the change', done.state === 'done')
    await crash(stage, scene, 'killed after the change')
    await onlyTheNew(stage, scene, { old: [alice.name, bob.name], kept, fresh })
  },
}

function isBegun({ kind, state, answered }: CeremonyView): boolean {
  return kind === 'holders' && state === 'open' && answered.length === 0
}

/** Three more people, with other names than those who are there. */
async function newPeople({ directory }: Stage, { holders }: Scene): Promise<LocalHolder[]> {
  const names = ['grace', 'heidi', 'ivan']
  const made = await makeHolders(join(directory, 'new-holders'), names.length)
  const taken = holders.map(({ name }) => name)
  return made.map((holder, index) => {
    const name = names[index] ?? holder.name
    if (taken.includes(name)) throw new Error('the new holders have names of their own')
    return { ...holder, name }
  })
}

async function crash({ timeline }: Stage, { coordinator }: Scene, what: string): Promise<void> {
  await coordinator.kill()
  await coordinator.start()
  const { state, generation = 0 } = await coordinator.status()
  timeline.proves(`${what}: it runs as before`, state === 'running', { state, generation })
}

/** The ceremony of the new holders; setting the same manifest again finds it. */
async function changeOf({ owner }: Scene, manifest: ManifestInput): Promise<CeremonyView> {
  const { ceremonies } = await owner.call(ceremonyRoutes.list)
  const open = ceremonies.find(({ kind, state }) => kind === 'holders' && state === 'open')
  return open ?? (await setManifest(owner, manifest))
}

async function onlyTheNew(
  stage: Stage,
  { coordinator, owner }: Scene,
  {
    old,
    kept,
    fresh,
  }: { old: readonly string[]; kept: string; fresh: readonly ReturnType<typeof softwareKey>[] },
): Promise<void> {
  const { timeline } = stage
  await owner.call(keyRoutes.seal)
  const { id, holders } = await begin(owner, 'recovery')
  timeline.proves('only the new ones are asked', !holders.some((name) => old.includes(name)), {
    holders,
  })
  await timeline.refuses(
    'an answer that an old holder kept is worth nothing',
    ['ceremony.holder_unknown'],
    () => handIn(owner, id, kept),
  )
  const [grace, heidi] = fresh
  if (!grace || !heidi) throw new Error('there are three new holders')
  for (const key of [grace, heidi]) await answer(owner, id, key)
  await isNow(stage, 'two new holders open it', coordinator, { state: 'running' })
}
