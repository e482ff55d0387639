import { isFault, run } from '@holdfast/base'
import { nodeRoutes } from '@holdfast/protocol'
import type { ControlPlane } from './control-plane.ts'
import type { Drill, Stage } from './drill.ts'
import type { FleetNode } from './fleet-node.ts'
import { setPlane } from './fleet-scene.ts'

/** An invite is worth exactly as many nodes as it was made for. */
export const tokenRaced: Drill = {
  name: 'token-raced',
  title: 'An invite is used twice, also at the same moment',
  summary:
    'Two operators enrol two machines with one invite for one node at the same moment: one gets in, the other machine stays blank and keeps its code. Afterwards, and with a guessed or revoked token, nobody gets in; what fails gives its use back.',
  run: async (stage) => {
    const { timeline, signal } = stage
    const plane = await setPlane(stage)
    const [first, second, third] = await Promise.all([
      plane.startNode('node-1'),
      plane.startNode('node-2'),
      plane.startNode('node-3'),
    ])
    const racing = [first, second]
    const before = await Promise.all(racing.map((node) => isBlank(node)))
    const invite = await plane.invite(1)
    const [one, two] = await Promise.all(racing.map((node) => tries(plane, node, invite, signal)))
    const winner = one === 'enrolled' ? first : second
    const loser = winner === first ? second : first
    const codes = [one, two].map(String)
    timeline.proves(
      'of two enrolments at the same moment exactly one wins',
      codes.filter((code) => code === 'enrolled').length === 1,
      { codes, blankBefore: before.every(Boolean) },
    )
    timeline.proves('the other machine has not been touched', await isBlank(loser), {
      node: loser.name,
    })
    timeline.proves('the invite is used up', (await usesLeft(plane)) === 0)
    await refused(stage, 'the token is refused a second time', plane, loser, invite)
    await refused(stage, 'so is one that was guessed', plane, loser, 'A'.repeat(43))
    const next = await plane.client.call(nodeRoutes.invite, { body: { uses: 1 } })
    await plane.client.call(nodeRoutes.revokeInvite, { params: { id: next.id } })
    await refused(stage, 'and one that was revoked', plane, loser, next.token)
    await givesBack(stage, plane, winner, third)
  },
}

/** One try to enrol; says how it ended. */
async function tries(
  plane: ControlPlane,
  node: FleetNode,
  invite: string,
  signal: AbortSignal,
): Promise<string> {
  try {
    await plane.enrol(node, { invite, genesis: true, signal })
    return 'enrolled'
  } catch (error) {
    if (isFault(error)) return error.code
    throw error
  }
}

/** Whether nothing was ever written to its disk. */
async function isBlank({ device }: FleetNode): Promise<boolean> {
  const { code } = await run('cryptsetup', ['isLuks', device], { accept: [0, 1] })
  return code === 1
}

async function usesLeft(plane: ControlPlane): Promise<number> {
  const { invites } = await plane.client.call(nodeRoutes.invites)
  return invites.reduce((sum, { uses, used, reserved }) => sum + uses - used - reserved, 0)
}

const refusals = ['invite.unknown', 'invite.used_up', 'invite.revoked']

async function refused(
  { timeline, signal }: Stage,
  step: string,
  plane: ControlPlane,
  node: FleetNode,
  invite: string,
): Promise<void> {
  await timeline.refuses(step, refusals, () => plane.enrol(node, { invite, signal }))
}

/** A wrong code costs an enrolment, not the invite. */
async function givesBack(
  { timeline, signal }: Stage,
  plane: ControlPlane,
  enrolled: FleetNode,
  node: FleetNode,
): Promise<void> {
  const invite = await plane.invite(1)
  const { address } = await node.console(signal)
  const body = { invite, address, code: 'AAAA-AAAA-AAAA-AAAA', name: node.name, genesis: false }
  let code = ''
  try {
    await plane.client.call(nodeRoutes.enrol, { body })
  } catch (error) {
    code = isFault(error) ? error.code : String(error)
  }
  timeline.proves('a wrong code does not enrol', code !== '', { refused: code })
  timeline.proves('and gives the use of its invite back', (await usesLeft(plane)) === 1)
  const view = await plane.view(enrolled)
  timeline.proves('the node that won is open', view.phase === 'open', { node: enrolled.name })
}
