import type { Drill } from './drill.ts'
import { isOpen, setGuardedFleet, staysLocked } from './fleet-scene.ts'

/** A power cut of one node, with one guardian too few, just enough, and one more than enough. */
export const nodeReboots: Drill = {
  name: 'node-reboots',
  title: 'A node comes back with one guardian too few, enough, and one more',
  summary:
    'Two of three guardians open a node. After a power cut it stays shut as long as one answers, opens as soon as the second is there, although that one is locked itself, and opens at once with all three. It needs no coordinator for it.',
  run: async (stage) => {
    const { timeline } = stage
    const { plane, nodes } = await setGuardedFleet(stage)
    const [ward, second, third] = nodes
    if (!ward || !second || !third) throw new Error('there are four nodes')
    for (const node of [ward, second, third]) await node.cutPower()
    await ward.start()
    await staysLocked(stage, 'with one guardian of the two it needs it stays shut', ward, 6)
    await second.start()
    await isOpen(stage, 'with two it opens, although one of them is locked itself', plane, ward)
    await isOpen(stage, 'and that one opens, too', plane, second)
    await third.start()
    await isOpen(stage, 'the third is back', plane, third)
    await ward.cutPower()
    await ward.start()
    await isOpen(stage, 'with all three it opens', plane, ward)

    await plane.coordinator.kill()
    await ward.cutPower()
    await ward.start()
    await ward.until('opens', () => (ward.phase === 'open' ? true : undefined), stage.signal)
    timeline.proves('it opens while the coordinator is gone', ward.phase === 'open')
    await plane.coordinator.start()
    await isOpen(stage, 'the coordinator hears of it when it is back', plane, ward)
  },
}

/** Everything loses power at once, and nothing is there that would open the first. */
export const fleetColdStart: Drill = {
  name: 'fleet-cold-start',
  title: 'The whole fleet comes back from a power cut',
  summary:
    'All nodes and the coordinator lose power at once. A node alone waits; as soon as enough others run, each of them locked, all of them open each other, with nobody’s doing and without the coordinator.',
  run: async (stage) => {
    const { timeline, signal } = stage
    const { plane, nodes } = await setGuardedFleet(stage)
    const [first, ...others] = nodes
    if (!first) throw new Error('there are four nodes')
    await plane.coordinator.kill()
    await Promise.all(nodes.map((node) => node.cutPower()))
    timeline.note('everything is without power', { nodes: nodes.map(({ name }) => name) })
    await first.start()
    await staysLocked(stage, 'the first to be back waits', first)
    await Promise.all(others.map((node) => node.start()))
    for (const node of nodes)
      await node.until('opens', () => (node.phase === 'open' ? true : undefined), signal)
    timeline.proves('every node is open', true, {
      phases: nodes.map(({ name, phase }) => `${name} ${phase}`),
    })
    await plane.coordinator.start()
    const { state } = await plane.coordinator.status()
    timeline.proves('the coordinator opens by its host key', state === 'running', { state })
    for (const node of nodes) await isOpen(stage, `${node.name} is connected again`, plane, node)
  },
}
