import { join } from 'node:path'
import { writeDurable } from '@holdfast/base'
import type { LockedState } from '@holdfast/protocol'
import type { ControlPlane } from './control-plane.ts'
import type { Drill, Stage } from './drill.ts'
import type { Command } from './fleet.ts'
import { holdersOpen } from './fleet-holders.ts'
import { lookUntil } from './fleet-locked.ts'
import type { FleetNode } from './fleet-node.ts'
import { isAudited, isOpen, setGuardedFleet } from './fleet-scene.ts'

/** Guardians whose program was tampered with: they answer, and what they say is wrong. */
export const guardiansLie: Drill = {
  name: 'guardians-lie',
  title: 'One guardian lies, then two, then three of five',
  summary:
    'Three of five guardians open a node. One or two of them that answer with a wrong point keep it shut no longer than until three honest ones are there, and are named to the coordinator. With three liars it stays shut, says who they are, and its holders open it.',
  run: async (stage) => {
    const { agent, directory } = stage
    const commandOf = (name: string) => lying(agent, markOf(directory, name))
    const guardians = { count: 5, threshold: 3, margin: 1 }
    const { plane, nodes } = await setGuardedFleet(stage, { nodes: 6, guardians, commandOf })
    const [ward, one, two, three, four, five] = nodes
    if (!ward || !one || !two || !three || !four || !five) throw new Error('there are six nodes')
    const scene = { stage, plane, ward }

    await turns(stage, one, ward)
    for (const node of [ward, four, five]) await node.cutPower()
    await ward.start()
    await names(scene, 'one that lies is found out: with two honest ones it waits', [one])
    await four.start()
    await isOpen(stage, 'one that lies prevents nothing: three honest ones open it', plane, ward)
    await five.start()
    await isOpen(stage, 'the others are back', plane, five)

    await turns(stage, two, ward)
    for (const node of [ward, five]) await node.cutPower()
    await ward.start()
    await names(scene, 'of two that lie both are named', [one, two])
    await five.start()
    await isOpen(stage, 'with two that lie the three honest ones open it', plane, ward)
    await isOpen(stage, 'all guardians are there', plane, five)

    await turns(stage, three, ward)
    await ward.cutPower()
    await ward.start()
    await names(scene, 'with three that lie it stays shut, and names them', [one, two, three])
    await holdersOpen(stage, 'two holders open it', plane, ward)
  },
}

function markOf(directory: string, name: string): string {
  return join(directory, `lies-of-${name}`)
}

/** From now on this guardian lies to that ward. */
async function turns({ directory, timeline }: Stage, liar: FleetNode, ward: FleetNode) {
  await writeDurable(markOf(directory, liar.name), ward.node)
  timeline.note(`${liar.name} lies from now on`, { liar: liar.node, to: ward.node })
}

/**
 * The agent, tampered with: it answers a recovery with a point that has nothing to do with its key as soon
 * as `mark` names the ward that asks. The agent itself has no such thing; a guardian's stored key that was
 * swapped is noticed by the guardian, because requests name the key that they are for.
 */
function lying({ program, args }: Command, mark: string): Command {
  const source = `
    import { createHash, generateKeyPairSync } from 'node:crypto'
    import { existsSync, readFileSync } from 'node:fs'
    import { ServerResponse } from 'node:http'
    const { end } = ServerResponse.prototype
    const nodeOf = ({ publicKey }) =>
      createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64url')
    ServerResponse.prototype.end = function (body, ...rest) {
      const { url, socket } = this.req
      const answers = url.startsWith('/peer/rec/') && this.statusCode === 200
      if (!answers || !existsSync(${JSON.stringify(mark)})) return end.call(this, body, ...rest)
      const ward = readFileSync(${JSON.stringify(mark)}, 'utf8')
      const certificate = socket.getPeerX509Certificate() // none when whoever asked has gone
      if (certificate === undefined || nodeOf(certificate) !== ward)
        return end.call(this, body, ...rest)
      const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const point = publicKey.export({ format: 'jwk' })
      return end.call(this, JSON.stringify({ point }), ...rest)
    }`
  const tampered = `NODE_OPTIONS=--import=data:text/javascript,${encodeURIComponent(source)}`
  return { program: 'env', args: [tampered, program, ...args] }
}

interface Scene {
  stage: Stage
  plane: ControlPlane
  ward: FleetNode
}

/** The node is locked, says who has lied to it, and the newest of them has raised an alarm. */
async function names({ stage, plane, ward }: Scene, step: string, liars: readonly FleetNode[]) {
  const { timeline, signal } = stage
  const newest = liars.at(-1)
  await isAudited(stage, `${newest?.name} is named to the coordinator`, plane, {
    action: 'node.incident',
    text: new RegExp(`peer\\.guardian_lied.*${newest?.node}`),
  })
  const state = await lookUntil(
    ward,
    'says who has lied',
    (seen) => seen.phase !== 'locked' || accusedIn(seen).length >= liars.length,
    signal,
  )
  const accused = accusedIn(state)
  const right = liars.every(({ node }) => accused.includes(node))
  timeline.proves(step, state.phase === 'locked' && right, {
    phase: state.phase,
    answered: state.progress?.answered.length ?? 0,
    accused,
  })
}

function accusedIn({ progress }: LockedState): string[] {
  const missing = progress?.missing ?? []
  return missing.flatMap(({ guardian, reason }) =>
    reason.startsWith('agent.guardian_lied') ? [guardian] : [],
  )
}
