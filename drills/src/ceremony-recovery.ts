import type { ApiClient } from '@holdfast/link/api-client'
import { ceremonyRoutes, keyRoutes } from '@holdfast/protocol'
import { createPins, open } from '@holdfast/seal'
import { answer, type CeremonyView } from './ceremony-holder.ts'
import { begin, isNow, loseHostKey, type Scene, setCoordinator } from './ceremony-scene.ts'
import type { Drill, Stage } from './drill.ts'
import { holdersPresent, type LocalHolder } from './holders.ts'

/** A small place: one person. */
export const recoverySingleHolder: Drill = {
  name: 'recovery-single-holder',
  title: 'The coordinator has lost its host key; one holder opens it',
  summary:
    'The process is killed and comes back without its host key. It says that it is sealed, is alive but not ready, and keeps its identity; the one holder opens it, and what it knew is there again.',
  run: async (stage) => {
    const { timeline, cleanup } = stage
    const scene = await setCoordinator(stage, { holders: 1, threshold: 1 })
    const { coordinator, owner, keys } = scene
    const before = coordinator.identity
    const status = await loseHostKey(stage, coordinator)
    timeline.proves('its identity is the same', status.identity === before)
    await timeline.refuses('what only an open coordinator does is refused', [...sealedCodes], () =>
      owner.call(keyRoutes.list),
    )
    const anybody = cleanup.use(coordinator.client())
    const ceremony = await begin(anybody, 'recovery')
    const [only] = keys
    if (only === undefined) throw new Error('there is one holder')
    const after = await answer(anybody, ceremony.id, only)
    timeline.proves('one answer is enough', after.state === 'done', { ceremony: after.id })
    await isNow(stage, 'the coordinator runs', coordinator, { state: 'running' })
    const { ways } = await owner.call(keyRoutes.list)
    timeline.proves("its owner's token works as before", ways.length > 0, {
      ways: ways.map(({ kind }) => kind),
    })
  },
}

const sealedCodes = ['coordinator.not_in_this_state']

/** Every pair is tried, each as the beginning of another triple. */
export const recoveryThreeOfFive: Drill = {
  name: 'recovery-three-of-five',
  title: 'Any three of five holders open it, and no two of them',
  summary:
    'Each of the ten triples recovers the coordinator once, shown as 3, 2, 1, 0 missing; each of the ten pairs is stopped at two, and cannot open the sealed data key by itself either.',
  run: async (stage) => {
    const { timeline, cleanup } = stage
    const scene = await setCoordinator(stage, { holders: 5, threshold: 3 })
    await loseHostKey(stage, scene.coordinator)
    const people = scene.holders.map((_holder, index) =>
      cleanup.use(scene.coordinator.client({ from: `127.0.1.${index + 1}` })),
    )
    const pairs = new Set<string>()
    for (const [index, triple] of triples().entries()) {
      if (index > 0) await seal(stage, scene)
      const pair = await recoverWith(stage, scene, people, triple)
      pairs.add(pair)
    }
    timeline.proves('all ten triples opened it and no pair did', pairs.size === 10, {
      pairs: [...pairs],
    })
  },
}

type Triple = readonly [number, number, number]

/** The ten triples of 0 to 4, ordered so that the first two of each are another pair. */
function triples(): Triple[] {
  return [0, 1, 2, 3, 4].flatMap((first): Triple[] => {
    const at = (further: number) => (first + further) % 5
    return [
      [first, at(1), at(2)],
      [first, at(2), at(3)],
    ]
  })
}

async function seal({ timeline }: Stage, { coordinator, owner }: Scene): Promise<void> {
  await owner.call(keyRoutes.seal)
  const { state } = await coordinator.status()
  timeline.proves('it is told to forget the data key', state === 'recovery')
}

/** Recovers with three holders; returns the pair that was not enough. */
async function recoverWith(
  stage: Stage,
  scene: Scene,
  people: readonly ApiClient[],
  triple: Triple,
): Promise<string> {
  const { timeline } = stage
  const names = triple.map((index) => scene.holders[index]?.name ?? '')
  const [firstPerson] = people
  if (firstPerson === undefined) throw new Error('there are five people')
  const { id } = await begin(firstPerson, 'recovery')
  const missing = [await missingOf(scene)]
  let last: CeremonyView | undefined
  for (const [count, index] of triple.entries()) {
    if (count === 2) await twoAreNotEnough(stage, scene, firstPerson, id, triple)
    const [key, person] = [scene.keys[index], people[index]]
    if (key === undefined || person === undefined) throw new Error('a triple is of five')
    last = await answer(person, id, key)
    missing.push(last.state === 'open' ? await missingOf(scene) : last.threshold - answered(last))
  }
  const { state } = await scene.coordinator.status()
  timeline.proves(
    `${names.join(', ')} open it; missing is shown as ${missing.join(', ')}`,
    state === 'running' && missing.join() === '3,2,1,0' && last?.state === 'done',
    { state, missing },
  )
  return names.slice(0, 2).sort().join('+')
}

const answered = (ceremony: CeremonyView): number => ceremony.answered.length

async function missingOf({ coordinator }: Scene): Promise<number> {
  return (await coordinator.status()).ceremony?.missing ?? Number.NaN
}

/** Two have answered: nothing opens. Their two keys do not open what is sealed either; three do. */
async function twoAreNotEnough(
  { timeline }: Stage,
  { coordinator, holders }: Scene,
  client: ApiClient,
  id: string,
  triple: Triple,
): Promise<void> {
  const { state } = await coordinator.status()
  const three = triple.flatMap((index) => holders[index] ?? [])
  const pair = three.slice(0, 2)
  const names = pair.map(({ name }) => name).join(' and ')
  timeline.proves(`${names} alone do not`, state === 'recovery', { state })
  const params = { id, holder: pair[0]?.name ?? '' }
  const { sealed } = await client.call(ceremonyRoutes.request, { params })
  const openedBy = async (people: readonly LocalHolder[]) => {
    using opened = await open(createPins({ holders: holdersPresent(people) }), sealed)
    return opened.reveal().length
  }
  await timeline.refuses(
    `nor does what is sealed open to the two keys of ${names}`,
    ['seal.threshold_not_met'],
    () => openedBy(pair),
  )
  timeline.proves('to a third key as well it does', (await openedBy(three)) > 0)
}
