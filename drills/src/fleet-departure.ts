import { run } from '@holdfast/base'
import type { ControlPlane, NodeView } from './control-plane.ts'
import type { Drill, Stage } from './drill.ts'
import type { FleetNode } from './fleet-node.ts'
import { command, isOpen, setGuardedFleet } from './fleet-scene.ts'
import { isGuarded } from './fleet-whole.ts'

export const nodeLeaves: Drill = {
  name: 'node-leaves',
  title: 'A node leaves for good, and another one may not',
  summary:
    'Of five nodes one leaves: it is told to go only when everybody whom it guarded has moved to other guardians, and its vault is destroyed. The next one is refused, because the others would be left below threshold plus margin, and nothing has changed for it.',
  run: async (stage) => {
    const { timeline, signal } = stage
    const { plane, nodes } = await setGuardedFleet(stage, { nodes: 5 })
    const [first, , , fourth, leaver] = nodes
    if (!first || !fourth || !leaver) throw new Error('there are five nodes')
    const before = await plane.view(leaver)
    const ended = await command(
      plane,
      leaver,
      { command: 'leave', confirmation: leaver.name },
      signal,
    )
    timeline.proves('a node that is not needed leaves', ended.state === 'done', {
      wards: before.wards.length,
      state: ended.state,
      code: ended.code ?? '',
    })
    const rest = nodes.filter((node) => node !== leaver)
    const views = await withoutLeaver(plane, leaver, rest.length, signal)
    timeline.proves('everybody it guarded has other guardians', true, {
      epochs: views.map(({ name, epoch }) => `${name} ${epoch}`),
    })
    await isGone(stage, plane, leaver)
    const view = await plane.view(fourth)
    await timeline.refuses('at the margin nobody may leave', ['node.needed'], () =>
      command(plane, fourth, { command: 'leave', confirmation: fourth.name }, signal),
    )
    const same = await plane.view(fourth)
    timeline.proves(
      'who was refused is a member as before',
      same.phase === 'open' && same.epoch === view.epoch && same.wards.length === view.wards.length,
      { phase: same.phase, epoch: same.epoch, wards: same.wards.length },
    )
    await first.cutPower()
    await first.start()
    await isOpen(stage, 'those who stay open by themselves after a power cut', plane, first)
  },
}

/** Waits until the others are guarded by others alone. */
async function withoutLeaver(
  plane: ControlPlane,
  leaver: FleetNode,
  count: number,
  signal: AbortSignal,
): Promise<readonly NodeView[]> {
  return await plane.until(
    'the others are guarded without it',
    async () => {
      const views = (await plane.views()).filter(({ node }) => node !== leaver.node)
      const moved = views.every((view) => isGuarded(view) && !view.guardians.includes(leaver.node))
      return views.length === count && moved ? views : undefined
    },
    signal,
  )
}

async function isGone(
  { timeline, signal }: Stage,
  plane: ControlPlane,
  leaver: FleetNode,
): Promise<void> {
  // Its receipt may be there before its last report.
  const phase = await plane.until(
    `${leaver.name} has left`,
    async () => {
      const view = await plane.view(leaver)
      return view.phase === 'left' ? view.phase : undefined
    },
    signal,
  )
  timeline.proves('the coordinator knows that it has left', true, { phase })
  const left = await keyslots(leaver.device)
  timeline.proves('its vault is destroyed', left === 0, { keyslots: left })
}

/** How many keyslots cryptsetup finds; none where there is no LUKS2 header. */
async function keyslots(device: string): Promise<number> {
  const words = ['luksDump', '--dump-json-metadata', device]
  const { code, stdout } = await run('cryptsetup', words, { accept: [0, 1] })
  if (code !== 0) return 0
  const { keyslots: slots } = JSON.parse(stdout.toString('utf8')) as { keyslots: object } // cryptsetup's own format
  return Object.keys(slots).length
}

export const resetWhileLocked: Drill = {
  name: 'reset-while-locked',
  title: 'A factory reset of a node that does not open',
  summary:
    'A node is locked because too few guardians answer. It is reset all the same: its keyslots and header are destroyed first, a signed receipt says so, and its guardians forget it.',
  run: async (stage) => {
    const { timeline, signal } = stage
    const { plane, nodes } = await setGuardedFleet(stage)
    const [, target, ...guardians] = nodes
    if (target === undefined) throw new Error('there are four nodes')
    for (const node of [target, ...guardians]) await node.cutPower()
    await target.start()
    const locked = await plane.until(
      'it is connected and locked',
      async () => {
        const view = await plane.view(target)
        return view.connected && view.phase === 'locked' ? view : undefined
      },
      signal,
    )
    timeline.proves('with one guardian of two it is locked, and connected', true, {
      phase: locked.phase,
    })
    const before = await keyslots(target.device)
    await timeline.refuses(
      'a reset that does not name it is refused',
      ['command.confirmation_needed'],
      () => command(plane, target, { command: 'reset' }, signal),
    )
    const ended = await command(
      plane,
      target,
      { command: 'reset', confirmation: target.name },
      signal,
    )
    timeline.proves('locked as it is, it is reset', ended.state === 'done', {
      state: ended.state,
      code: ended.code ?? '',
      receipt: JSON.stringify(ended.result?.receipt ?? null).slice(0, 300),
    })
    const left = await keyslots(target.device)
    timeline.proves('its keyslots are destroyed', before > 0 && left === 0, {
      keyslotsBefore: before,
      keyslotsAfter: left,
    })
    for (const node of guardians) await node.start()
    for (const node of guardians) await isOpen(stage, `${node.name} is back`, plane, node)
    await nobodysWard(stage, plane, target)
    await target.cutPower()
    await target.start()
    const after = await plane.view(target)
    timeline.proves('after a power cut it is what it was: wiped', after.phase === 'wiped', {
      phase: after.phase,
    })
  },
}

/** Its guardians have destroyed the keys that they held for it. */
async function nobodysWard(
  { timeline, signal }: Stage,
  plane: ControlPlane,
  { node }: FleetNode,
): Promise<void> {
  await plane.until(
    'nobody guards it any more',
    async () =>
      (await plane.views()).some(({ wards }) => wards.includes(node)) ? undefined : true,
    signal,
  )
  timeline.proves('when its guardians are back, they forget it', true)
}
