import { cp, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { ManifestInput } from '@holdfast/protocol'
import { answer, softwareKey } from './ceremony-holder.ts'
import { setManifest } from './ceremony-scene.ts'
import { type ControlPlane, fleetManifest } from './control-plane.ts'
import type { Drill, Stage } from './drill.ts'
import type { FleetNode } from './fleet-node.ts'
import { isAudited, isOpen, setGuardedFleet } from './fleet-scene.ts'
import { isGuarded } from './fleet-whole.ts'

type Rules = NonNullable<ManifestInput['guardians']>

/** All three guardians are needed: whoever opens then has shown that the third one can. */
const all: Rules = { count: 3, threshold: 3, margin: 0 }
const two: Rules = { count: 3, threshold: 2, margin: 1 }

export const guardianRolledBack: Drill = {
  name: 'guardian-rolled-back',
  title: 'A guardian comes back with the keys of an earlier epoch',
  summary:
    'A guardian is restored from a copy that was made before its wards got new keys. The others open its ward, the guardian is named to the coordinator, and the next re-share gives it a key that opens again.',
  run: async (stage) => {
    const { timeline } = stage
    const { plane, nodes } = await setGuardedFleet(stage, { guardians: all })
    const [ward, old, honest, away] = nodes
    if (!ward || !old || !honest || !away) throw new Error('there are four nodes')
    const copy = join(stage.directory, 'copy-of-wards')
    const wards = join(old.directory, 'wards')
    await old.whileStill(() => cp(wards, copy, { recursive: true }))
    const before = await keysFor(ward, old)
    timeline.note('the keys of a guardian are copied', { guardian: old.node, keys: before })
    await reshared(stage, plane, two)

    const current = await keysFor(ward, old)
    for (const node of [old, ward, away]) await node.cutPower()
    await rm(wards, { recursive: true })
    await cp(copy, wards, { recursive: true })
    const back = await keysFor(ward, old)
    timeline.proves(
      'it is put back to an epoch that is over',
      back.join() === before.join() && current.join() !== before.join(),
      { before, current, back },
    )
    await old.start()
    await ward.start()
    await isAudited(stage, 'it is named to the coordinator as rolled back', plane, {
      action: 'node.incident',
      text: new RegExp(`peer\\.guardian_rolled_back.*${old.node}.*gone back to epoch`),
    })
    const { phase = '' } = ward
    timeline.proves('its share counts for nothing', phase === 'locked', { phase })
    await away.start()
    await isOpen(stage, 'the other guardians open its ward', plane, ward)
    for (const node of [old, away]) await isOpen(stage, `${node.name} is open`, plane, node)

    await reshared(stage, plane, all)
    const repaired = await keysFor(ward, old)
    timeline.proves(
      'the next re-share gives it a new key, and destroys the old one',
      repaired.length === 1 && ![...before, ...current].includes(repaired[0] ?? ''),
      { repaired },
    )
    await ward.cutPower()
    await ward.start()
    await isOpen(stage, 'now that all three are needed, it opens again', plane, ward)
  },
}

/** The keys that a guardian has for a ward, by their epochs. */
async function keysFor(ward: FleetNode, guardian: FleetNode): Promise<string[]> {
  const names = await readdir(join(guardian.directory, 'wards', ward.node))
  return names.filter((name) => name.endsWith('.jwk')).sort()
}

/** The rules change, holders approve that, and every node gets new keys from its guardians. */
async function reshared(
  { timeline, signal }: Stage,
  plane: ControlPlane,
  guardians: Rules,
): Promise<void> {
  const before = new Map((await plane.views()).map(({ node, epoch }) => [node, epoch]))
  const rules = { guardians, genesis: { peers: 3 } }
  const ceremony = await setManifest(plane.client, fleetManifest(plane.holders, 2, rules))
  for (const holder of plane.holders.slice(0, ceremony.threshold))
    await answer(plane.client, ceremony.id, softwareKey(holder))
  const views = await plane.until(
    'every node has new guardian keys',
    async () => {
      const found = await plane.views()
      const moved = found.every(
        (view) =>
          isGuarded(view) &&
          view.epoch > (before.get(view.node) ?? 0) &&
          view.reshare === undefined,
      )
      return moved ? found : undefined
    },
    signal,
  )
  timeline.proves('the rules change, and every node is re-shared', true, {
    threshold: guardians.threshold ?? 0,
    epochs: views.map(({ name, epoch }) => `${name} ${epoch}`),
  })
}
