import type { ControlPlane } from './control-plane.ts'
import type { Drill, Stage } from './drill.ts'
import { openedBy, pushOf } from './fleet-holders.ts'
import type { FleetNode } from './fleet-node.ts'
import { command, isOpen, setPlane } from './fleet-scene.ts'
import { isGuarded } from './fleet-whole.ts'

/** From the first node, whom only the holders can bring back, to a fleet that opens itself. */
export const genesisToPeers: Drill = {
  name: 'genesis-to-peers',
  title: 'The first node, alone, until peers guard it',
  summary:
    'The first node is bound to the holders. It opens by itself as long as its memory lasts; after a power cut one holder is not enough and two open it. When three peers have joined, all four move to guardians without anybody’s doing, and the next power cut needs no people.',
  run: async (stage) => {
    const { timeline, signal } = stage
    const rules = { count: 3, threshold: 2, margin: 1 }
    const plane = await setPlane(stage, { guardians: rules, genesis: { peers: 3 } })
    const invite = await plane.invite(4)
    const first = await plane.startNode()
    await timeline.refuses('nobody comes first by accident', ['enrolment.genesis_needed'], () =>
      plane.enrol(first, { invite, signal }),
    )
    await plane.enrol(first, { invite, genesis: true, signal })
    await hasWays(stage, 'the first node is bound to the holders', plane, first, 'temporary')

    await first.kill()
    await first.start()
    await isOpen(stage, 'killed with its memory intact, it opens by itself', plane, first)
    await first.cutPower()
    await first.start()
    await waitsForHolders(stage, plane, first)
    await holdersOpen(stage, plane, first)

    const others = await Promise.all([2, 3, 4].map(() => plane.startNode()))
    await Promise.all(others.map((node) => plane.enrol(node, { invite, signal })))
    timeline.note('three peers have joined', { nodes: others.map(({ name }) => name) })
    await plane.until(
      'all four are guarded',
      async () => {
        const views = await plane.views()
        return views.length === 4 && views.every(isGuarded) ? true : undefined
      },
      signal,
    )
    await hasWays(stage, 'the temporary way is gone', plane, first, 'of guardians')
    await first.cutPower()
    await first.start()
    await isOpen(stage, 'the next power cut needs no people', plane, first)
  },
}

async function hasWays(
  { timeline, signal }: Stage,
  step: string,
  plane: ControlPlane,
  node: FleetNode,
  wanted: 'temporary' | 'of guardians',
): Promise<void> {
  const { epoch, report } = await plane.until(
    `${node.name} says how it stands, now that it is enrolled`,
    async () => {
      const view = await plane.view(node)
      return view.phase === 'open' ? view : undefined
    },
    signal,
  )
  const { ways = [] } = report ?? {}
  // Several sets may have been begun until one was proven.
  const label = wanted === 'temporary' ? wanted : `epoch ${epoch}`
  const automatic = ways.filter(({ purpose }) => purpose === 'automatic').map((way) => way.label)
  const held = epoch > 0 === (wanted === 'of guardians')
  timeline.proves(step, held && automatic.join() === label, { automatic })
}

/** Its key was only in memory: it has tried several times, and says why in its report. */
async function waitsForHolders(
  { timeline, signal }: Stage,
  plane: ControlPlane,
  node: FleetNode,
): Promise<void> {
  const tried = await plane.until(
    `${node.name} has tried in vain`,
    async () => {
      const errors = (await plane.view(node)).report?.lastErrors ?? []
      const { phase = '' } = node // the coordinator may not have heard of the restart yet
      return phase === 'open' || errors.length >= 3 ? { phase, errors } : undefined
    },
    signal,
  )
  const { phase, errors } = tried
  const gone = errors.every((text) => /temporary key/.test(text))
  timeline.proves('after a power cut it does not', phase === 'locked' && gone, {
    phase,
    errors: [...new Set(errors)],
  })
}

/** One holder is refused, two open it: the passphrase is pushed, sealed for the node alone. */
async function holdersOpen(stage: Stage, plane: ControlPlane, node: FleetNode): Promise<void> {
  const { timeline, signal } = stage
  await timeline.refuses('one holder does not open it', ['seal.threshold_not_met'], () =>
    openedBy(stage, plane, node, 1),
  )
  const given = await pushOf(stage, plane, node)
  const { state, code = '' } = await command(plane, node, given, signal)
  timeline.proves('two holders open it', state === 'done', { state, code })
  await isOpen(stage, 'and the coordinator hears of it', plane, node)
}
