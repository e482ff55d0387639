import { createPublicKey } from 'node:crypto'
import type { Secret } from '@holdfast/base'
import { encryptJwe } from '@holdfast/crypto'
import type { LockedState } from '@holdfast/protocol'
import { parseCommandData } from '@holdfast/protocol/commands'
import { createPins, open } from '@holdfast/seal'
import type { ControlPlane } from './control-plane.ts'
import type { Stage } from './drill.ts'
import { pushTo } from './fleet-locked.ts'
import type { FleetNode } from './fleet-node.ts'
import { command, isOpen } from './fleet-scene.ts'
import { holdersPresent } from './holders.ts'

// How people open a node: its holders undo their way in, and an operator pushes the passphrase, sealed
// for that node alone.

/** The first `count` holders open what the node shows. @throws Fault seal.threshold_not_met */
export async function openedBy(
  stage: Stage,
  plane: ControlPlane,
  node: FleetNode,
  count: number,
): Promise<Shown & { passphrase: Secret }> {
  const asked = await command(plane, node, { command: 'status' }, stage.signal)
  const shown = parseCommandData('status', asked.result)
  return { ...shown, passphrase: await undone(stage, plane, shown, count) }
}

/** What a node shows to anybody: its public key, and the holders' way in. */
type Shown = Pick<LockedState, 'exchange' | 'recovery'>

async function undone(
  { signal }: Stage,
  { holders }: ControlPlane,
  { recovery }: Shown,
  count: number,
): Promise<Secret> {
  const pins = createPins({ holders: holdersPresent(holders.slice(0, count)) })
  return await open(pins, recovery[0]?.sealed ?? '', { signal })
}

async function sealedFor({ exchange }: Shown, passphrase: Secret): Promise<string> {
  return await encryptJwe({ alg: 'ECDH-ES' }, createPublicKey(exchange), passphrase)
}

/** The command that opens the node, which two holders have made possible. */
export async function pushOf(stage: Stage, plane: ControlPlane, node: FleetNode) {
  const shown = await openedBy(stage, plane, node, 2)
  using passphrase = shown.passphrase
  return { command: 'unlock', arguments: { sealed: await sealedFor(shown, passphrase) } } as const
}

/** The same at the node's own port. */
export async function pushAt(
  stage: Stage,
  plane: ControlPlane,
  node: FleetNode,
  shown: Shown,
): Promise<{ status: number; body: string }> {
  using passphrase = await undone(stage, plane, shown, 2)
  return await pushTo(node, await sealedFor(shown, passphrase), stage.signal)
}

/** Two holders open a node that its guardians do not open. */
export async function holdersOpen(
  stage: Stage,
  step: string,
  plane: ControlPlane,
  node: FleetNode,
): Promise<void> {
  const given = await pushOf(stage, plane, node)
  const { state, code = '' } = await command(plane, node, given, stage.signal)
  stage.timeline.proves(step, state === 'done', { state, code })
  await isOpen(stage, `${node.name} is open, and the coordinator hears of it`, plane, node)
}
