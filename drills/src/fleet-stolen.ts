import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, isFault } from '@holdfast/base'
import { nodeRoutes } from '@holdfast/protocol'
import { answer, softwareKey } from './ceremony-holder.ts'
import { setManifest } from './ceremony-scene.ts'
import { type ControlPlane, fleetManifest } from './control-plane.ts'
import type { Drill, Stage } from './drill.ts'
import { FleetNode } from './fleet-node.ts'
import { haveRead, isAudited, isOpen, setGuardedFleet, staysLocked } from './fleet-scene.ts'

const guardians = { count: 3, threshold: 2, margin: 1 }

/** Everything of a node but its memory was copied, its keys included: it has no TPM. */
export const diskCloned: Drill = {
  name: 'disk-cloned',
  title: 'A disk is copied and started elsewhere',
  summary:
    'The vault alone, in another machine, is neither opened nor formatted. A copy with the keys of the node as well is noticed by the coordinator and held by the guardians, both of which raise an alarm; frozen meanwhile, it is never answered, and the original runs on.',
  run: async (stage) => {
    const { timeline } = stage
    const { plane, nodes } = await setGuardedFleet(stage)
    const [one, two, three, original] = nodes
    if (!one || !two || !three || !original) throw new Error('there are four nodes')
    const guards = [one, two, three]
    await vaultAlone(stage, plane, original)
    await holdReleases(stage, plane, guards)
    const clone = await copyOf(stage, original)
    await staysLocked(stage, 'a copy with its keys is held by the guardians', clone, 1)
    await isAudited(stage, 'they raise an alarm at once', plane, {
      action: 'node.incident',
      text: /peer\.release_held/,
    })
    await isAudited(stage, 'the coordinator tells that two are alive', plane, {
      action: 'node.incident',
      text: /node\.twin_seen/,
    })
    await freeze(stage, plane, original, guards, 'its disk was copied')
    await clone.cutPower()
    await clone.start()
    await isToldFrozen(stage, clone)
    const view = await plane.view(original)
    timeline.proves('the original runs on', view.connected && view.phase === 'open', {
      phase: view.phase,
      connected: view.connected,
    })
  },
}

/** Only the disk, in a machine that has never been enrolled. */
async function vaultAlone(
  { timeline, directory, agent, cleanup, signal }: Stage,
  plane: ControlPlane,
  original: FleetNode,
): Promise<void> {
  const home = join(directory, 'thief')
  const memory = join(original.memory, '..', 'thief')
  const blank = cleanup.use(await FleetNode.launch({ name: 'thief', home, memory, command: agent }))
  await blank.stop()
  await original.whileStill(() => cp(original.device, blank.device))
  const before = await digestOf(blank.device)
  await blank.start()
  const shown = await blank.console(signal)
  const invite = await plane.invite(1)
  const body = { invite, ...shown, name: 'thief', genesis: false }
  const code = await howItFails(plane, body, signal)
  await blank.stop()
  timeline.proves(
    'the vault alone is not formatted by another machine, and not changed',
    (await digestOf(blank.device)) === before,
    { code },
  )
}

/** The code with which an enrolment is refused, at once or later. */
async function howItFails(
  plane: ControlPlane,
  body: { invite: string; address: string; code: string; name: string },
  signal: AbortSignal,
): Promise<string> {
  try {
    const { enrolment: id } = await plane.client.call(nodeRoutes.enrol, { body })
    const failed = await plane.until(
      'the enrolment has failed',
      async () => {
        const found = await plane.client.call(nodeRoutes.enrolment, { params: { id } })
        return found.state === 'failed' ? found : undefined
      },
      signal,
    )
    return failed.code ?? ''
  } catch (error) {
    if (isFault(error)) return error.code
    throw error
  }
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  return hash.digest('hex')
}

/** From now on the guardians announce a release and hold it: the holders approve that. */
async function holdReleases(
  stage: Stage,
  plane: ControlPlane,
  guards: readonly FleetNode[],
): Promise<void> {
  const holdMinutes = 10
  const rules = { guardians: { ...guardians, holdMinutes }, genesis: { peers: 3 } }
  const ceremony = await setManifest(plane.client, fleetManifest(plane.holders, 2, rules))
  for (const holder of plane.holders.slice(0, ceremony.threshold))
    await answer(plane.client, ceremony.id, softwareKey(holder))
  const says = new RegExp(`holdMinutes\\W+${holdMinutes}\\b`)
  await haveRead(stage, plane, guards, { document: 'policy', says })
  stage.timeline.note('from now on guardians announce a release, and hold it', { holdMinutes })
}

/** A whole copy, on a machine with a memory and a port of its own. */
async function copyOf(
  { directory, agent, cleanup }: Stage,
  original: FleetNode,
): Promise<FleetNode> {
  const home = join(directory, 'copy')
  const memory = join(original.memory, '..', 'copy')
  const clone = cleanup.use(await FleetNode.launch({ name: 'copy', home, memory, command: agent }))
  await clone.cutPower()
  await ensureDirectory(clone.directory)
  await original.whileStill(async () => {
    await cp(original.device, clone.device)
    await cp(original.directory, clone.directory, { recursive: true, force: true })
  })
  await clone.start()
  if (clone.node !== original.node) throw new Error('a copy has the identity of its original')
  return clone
}

async function freeze(
  stage: Stage,
  plane: ControlPlane,
  { node, name }: FleetNode,
  guards: readonly FleetNode[],
  reason: string,
): Promise<void> {
  await plane.client.call(nodeRoutes.freeze, { params: { node }, body: { reason } })
  const { frozen } = await plane.client.call(nodeRoutes.get, { params: { node } })
  await haveRead(stage, plane, guards, { document: 'freeze', says: new RegExp(node) })
  stage.timeline.proves('it is frozen, and its guardians know', frozen, { node: name, reason })
}

/** Waits until enough guardians have said why. */
async function isToldFrozen({ timeline, signal }: Stage, node: FleetNode): Promise<void> {
  const text = await node.until(
    'is told that it is frozen',
    () => node.events.map(({ text }) => String(text)).find((each) => /frozen/.test(each)),
    signal,
  )
  const shut = node.phase !== 'open'
  timeline.proves('its guardians refuse it as frozen', shut, { phase: node.phase ?? '', text })
}

/** The whole machine is gone, and its thief has power. */
export const stolenNodeFrozen: Drill = {
  name: 'stolen-node-frozen',
  title: 'A node is stolen with everything in it',
  summary:
    'It is frozen before the thief has found a socket: started again, its guardians answer nothing, and say so. Found again and released, it opens by itself.',
  run: async (stage) => {
    const { plane, nodes } = await setGuardedFleet(stage)
    const [one, stolen, three, four] = nodes
    if (!one || !stolen || !three || !four) throw new Error('there are four nodes')
    await stolen.cutPower()
    await freeze(stage, plane, stolen, [one, three, four], 'stolen')
    await stolen.start()
    await staysLocked(stage, 'started by its thief it stays locked', stolen)
    await isToldFrozen(stage, stolen)
    await isAudited(stage, 'the guardians tell who asked, and from where', plane, {
      action: 'node.incident',
      text: /peer\.release_refused.*(frozen|127\.0\.0\.1)/,
    })
    await plane.client.call(nodeRoutes.unfreeze, { params: { node: stolen.node } })
    await isOpen(stage, 'found again and released, it opens by itself', plane, stolen)
  },
}
