import { createHash, createPublicKey } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isObject, type JsonObject, parseJsonObject, run } from '@holdfast/base'
import { isSigned, keyId } from '@holdfast/link'
import type { ApiClient } from '@holdfast/link/api-client'
import { nodeRoutes, roles, userRoutes } from '@holdfast/protocol'
import { parseCommandData } from '@holdfast/protocol/commands'
import { createPins } from '@holdfast/seal'
import { type HeaderBackup, listBackups, luksType, readUuid, restoreHeader } from '@holdfast/vault'
import { type ControlPlane, operator } from './control-plane.ts'
import type { Drill, Stage } from './drill.ts'
import { holdersOpen, pushAt } from './fleet-holders.ts'
import { lookUntil } from './fleet-locked.ts'
import type { FleetNode } from './fleet-node.ts'
import { command, isOpen, setGuardedFleet } from './fleet-scene.ts'
import { isGuarded } from './fleet-whole.ts'
import { holdersPresent } from './holders.ts'

interface Scene {
  stage: Stage
  plane: ControlPlane
  node: FleetNode
  guardians: readonly FleetNode[]
  /** Whoever approves what destroys. */
  second: ApiClient
}

/** Three levels of panic on one node, one after another. */
export const nodePanic: Drill = {
  name: 'node-panic',
  title: 'Panic: shut, destroyed until the holders come, destroyed for good',
  summary:
    'Panic 1 holds a node shut over a restart although all of its guardians are there, until an operator pushes a key. Panic 2 destroys its keyslots and its identity, with a signed receipt; the holders restore its header from the sealed backup, a new identity adopts the vault, and the data key is the same. After panic 3 neither guardians nor holders nor the old backup open it. Both need a second person, because the manifest says so.',
  run: async (stage) => {
    const users = { [operator]: { roles: [...roles] }, second: { roles: ['operator' as const] } }
    const manifest = { users, twoPersonRule: true }
    const { plane, nodes } = await setGuardedFleet(stage, { guardians: { margin: 0 }, manifest })
    const [one, two, three, node] = nodes
    if (!one || !two || !three || !node) throw new Error('there are four nodes')
    const second = await secondPerson(stage, plane)
    const scene = { stage, plane, node, guardians: [one, two, three], second }
    await shut(scene)
    await command(plane, node, { command: 'first-boot' }, stage.signal)
    const before = { key: await volumeKey(node), own: await signingKey(node) }
    const backup = await destroyed(scene)
    await broughtBack(scene, backup, before)
    await gone(scene, backup)
  },
}

/** Another user, with a password and a token of their own. */
async function secondPerson(stage: Stage, plane: ControlPlane): Promise<ApiClient> {
  const login = { user: 'second', password: `password of ${stage.directory}` }
  const params = { name: login.user }
  await plane.client.call(userRoutes.set, { params, body: { password: login.password } })
  using first = plane.coordinator.client()
  const { value, cookie } = await first.send(userRoutes.login, { body: login })
  const { token } = await first.call(userRoutes.createToken, {
    headers: { cookie, 'x-csrf-token': value.csrf },
    body: { label: 'drill', scopes: ['operator'], days: 1 },
  })
  return stage.cleanup.use(plane.coordinator.client({ token }))
}

/** Panic 1. */
async function shut({ stage, plane, node, guardians }: Scene): Promise<void> {
  const { timeline, signal } = stage
  const given = { command: 'panic', arguments: { level: 1 } }
  const ended = await command(plane, node, given, signal)
  timeline.proves('panic 1 is carried out', ended.state === 'done', { code: ended.code ?? '' })
  await isReceipt(stage, node, ended, 'locked')
  const before = await releases(node, guardians)
  await node.cutPower()
  await node.start()
  const view = await plane.until(
    'it is connected again and held',
    async () => {
      const found = await plane.view(node)
      return found.connected && found.report?.held !== undefined ? found : undefined
    },
    signal,
  )
  const asked = await command(plane, node, { command: 'status' }, signal)
  const { report } = parseCommandData('status', asked.result)
  timeline.proves('after a restart it stays shut, held', report.phase === 'locked', {
    phase: report.phase,
    held: view.report?.held ?? '',
  })
  const after = await releases(node, guardians)
  timeline.proves('it asks none of its guardians, all of whom would answer', after === before, {
    releasesBefore: before,
    releasesAfter: after,
  })
  await holdersOpen(stage, "an operator's key opens it again", plane, node)
  await node.cutPower()
  await node.start()
  await isOpen(stage, 'from then on its guardians open it', plane, node)
}

/** How often its guardians have opened the node, by their logs. */
async function releases({ node }: FleetNode, guardians: readonly FleetNode[]): Promise<number> {
  let count = 0
  for (const { directory } of guardians) {
    const log = await readFile(join(directory, 'releases.log'), 'utf8')
    count += log
      .split('\n')
      .filter((line) => line.includes('"released"') && line.includes(node)).length
  }
  return count
}

/** Orders what destroys: with the node's name, and with somebody else's approval. */
async function destroy({ stage, plane, node, second }: Scene, level: 2 | 3) {
  const { timeline, signal } = stage
  const order = { command: 'panic', arguments: { level } } as const
  const params = { node: node.node }
  await timeline.refuses(
    `panic ${level} is refused without the name of the node`,
    ['command.confirmation_needed'],
    () => plane.client.call(nodeRoutes.command, { params, body: order }),
  )
  const body = { ...order, confirmation: node.name }
  const { id, state } = await plane.client.call(nodeRoutes.command, { params, body })
  timeline.proves(`panic ${level} waits for a second person`, state === 'confirm', { state })
  await timeline.refuses(
    `who has ordered panic ${level} cannot approve it`,
    ['command.same_person'],
    () => plane.client.call(nodeRoutes.approve, { params: { id } }),
  )
  await second.call(nodeRoutes.approve, { params: { id } })
  const ended = await plane.until(
    `panic ${level} has ended`,
    async () => {
      const found = await plane.client.call(nodeRoutes.commandState, { params: { id } })
      return ['done', 'failed', 'expired'].includes(found.state) ? found : undefined
    },
    signal,
  )
  timeline.proves(
    `approved by another person, panic ${level} is carried out`,
    ended.state === 'done',
    {
      code: ended.code ?? '',
    },
  )
  await isReceipt(stage, node, ended, 'wiped')
  await node.until(
    'has forgotten who it was',
    () => node.events.find(({ kind }) => kind === 'forgotten'),
    signal,
  )
  const type = await luksType({ device: node.device })
  timeline.proves(`after panic ${level} its disk has no header`, type === undefined, {
    left: (await readdir(node.directory)).sort(),
  })
}

/** The receipt is at the coordinator, is the node's, says what was done, and cannot be changed. */
async function isReceipt(
  { timeline }: Stage,
  { node, name, directory }: FleetNode,
  { id, result = {} }: { id: string; result?: Record<string, unknown> | undefined },
  what: string,
): Promise<void> {
  const kept = await readFile(join(directory, 'receipts', `${id}.json`), 'utf8')
  const { receipt, identity, signature } = parseJsonObject(kept, 'the receipt', 1024 * 1024)
  if (!isObject(receipt)) throw new Error('a receipt is an object')
  const key = createPublicKey(`${identity}`)
  const signed = (body: JsonObject) => isSigned(key, 'receipt', body, `${signature}`)
  const delivered = result.signature === signature && signed(receiptIn(result))
  const changed = signed({ ...receipt, what: 'left' })
  const right = keyId(key) === node && receipt.node === node && receipt.what === what
  timeline.proves(
    `a receipt that ${name} has signed is delivered and kept`,
    delivered && signed(receipt) && right && !changed,
    { node, what, signature: `${signature}` },
  )
}

function receiptIn({ receipt }: Record<string, unknown>): JsonObject {
  return parseJsonObject(JSON.stringify(receipt ?? {}), 'the receipt', 1024 * 1024)
}

/** Panic 2; gives the backup of the header that is left for the holders. */
async function destroyed(scene: Scene): Promise<HeaderBackup> {
  const { stage, plane, node } = scene
  const uuid = await readUuid({ device: node.device })
  const before = node.node
  await destroy(scene, 2)
  const backup = (await listBackups(node.directory, uuid)).backups.at(-1)
  if (backup === undefined) throw new Error('panic 2 leaves a backup')
  await isNobodysWard(scene, before)
  await plane.client.call(nodeRoutes.remove, { params: { node: before } })
  const invite = await plane.invite(1)
  await stage.timeline.refuses(
    'what the holders can bring back is not formatted',
    ['enrolment.disk_in_use'],
    () => plane.enrol(node, { invite, signal: stage.signal }),
  )
  return backup
}

/** Its guardians have destroyed their keys for it. */
async function isNobodysWard(
  { stage: { timeline, signal }, plane, guardians }: Scene,
  node: string,
): Promise<void> {
  const keys = await plane.until(
    'no guardian has a key for it',
    async () => {
      const names = await Promise.all(
        guardians.map(({ directory }) => readdir(join(directory, 'wards', node)).catch(() => [])),
      )
      const left = names.flat().filter((name) => name.endsWith('.jwk'))
      return left.length === 0 ? left : undefined
    },
    signal,
  )
  timeline.proves('its guardians have destroyed the keys that they held for it', true, {
    keys: keys.length,
  })
}

async function broughtBack(
  { stage, plane, node }: Scene,
  backup: HeaderBackup,
  { key, own }: { key: string; own: string },
): Promise<void> {
  const { timeline, signal } = stage
  await node.stop()
  await timeline.refuses('one holder does not restore it', ['seal.threshold_not_met'], () =>
    restore(plane, node, backup, 1),
  )
  const restored = await restore(plane, node, backup, 2)
  timeline.proves(
    'two holders restore its header from the sealed backup',
    (await volumeKey(node)) === key,
    { because: restored.because },
  )
  await node.start()
  const invite = await plane.invite(1)
  await Promise.all([plane.enrol(node, { invite, signal }), adopt(stage, plane, node)])
  const view = await plane.until(
    'it is guarded again',
    async () => {
      const found = await plane.view(node)
      return isGuarded(found) ? found : undefined
    },
    signal,
  )
  timeline.proves('as a new node it adopts the vault, and guardians open it', true, {
    epoch: view.epoch,
    ways: view.report?.ways.map(({ purpose, label }) => `${purpose} ${label}`) ?? [],
  })
  timeline.proves('the data key is the same', (await volumeKey(node)) === key)
  await firstBoot(stage, plane, node, own)
}

async function restore(plane: ControlPlane, node: FleetNode, backup: HeaderBackup, count: number) {
  const pins = createPins({ holders: holdersPresent(plane.holders.slice(0, count)) })
  return await restoreHeader(
    { pins, stateDirectory: node.directory },
    { device: node.device },
    backup,
  )
}

/** The holders open it once: none of its ways is for the new identity. */
async function adopt(stage: Stage, plane: ControlPlane, node: FleetNode): Promise<void> {
  const { timeline, signal } = stage
  const accepted = await node.until(
    'is accepted',
    () => node.events.find(({ kind, phase }) => kind === 'phase' && phase === 'enrolling'),
    signal,
  )
  const state = await lookUntil(node, 'adopts', ({ task }) => task === 'enrol:adopt', signal)
  timeline.note('enrolled anew, it waits for its holders', {
    phase: `${accepted.phase}`,
    needs: state.needs,
  })
  const { status, body } = await pushAt(stage, plane, node, state)
  timeline.proves('the holders open it once', status === 200, { status, body: body.slice(0, 200) })
}

/** What else a node has is made anew, and nothing of it was left over. */
async function firstBoot(
  { timeline, signal }: Stage,
  plane: ControlPlane,
  node: FleetNode,
  before: string,
): Promise<void> {
  const ended = await command(plane, node, { command: 'first-boot' }, signal)
  const { steps } = parseCommandData('first-boot', ended.result)
  const there = new Set(steps.flatMap(({ name, outcome }) => (outcome === 'absent' ? [] : [name])))
  const all = (['identity', 'signing-keys', 'canaries'] as const).every((name) => there.has(name))
  const another = (await signingKey(node)) !== before
  timeline.proves('first boot has made the rest anew', all && another, {
    steps: steps.map(({ name, outcome, detail = '' }) => `${name} ${outcome} ${detail}`.trim()),
    anotherSigningKey: another,
  })
}

/** The digest of the file with the key that signs tokens. */
async function signingKey({ directory }: FleetNode): Promise<string> {
  const file = await readFile(join(directory, 'signing-key.json'))
  return createHash('sha256').update(file).digest('hex')
}

/** Panic 3: with the keyslots go the backups of the header. */
async function gone(scene: Scene, backup: HeaderBackup): Promise<void> {
  const { stage, plane, node } = scene
  const { timeline } = stage
  const uuid = await readUuid({ device: node.device })
  const before = node.node
  await destroy(scene, 3)
  await isNobodysWard(scene, before)
  const { backups } = await listBackups(node.directory, uuid)
  timeline.proves('panic 3 leaves no backup of the header', backups.length === 0, {
    backups: backups.length,
  })
  await node.stop()
  await timeline.refuses(
    'the holders cannot restore the backup of before',
    ['vault.destroyed'],
    () => restore(plane, node, backup, 3),
  )
}

/** What cryptsetup keeps of the volume key: the same as long as the data can be read. */
async function volumeKey({ device }: FleetNode): Promise<string> {
  const { stdout } = await run('cryptsetup', ['luksDump', '--dump-json-metadata', device])
  const { digests } = parseJsonObject(stdout.toString('utf8'), 'the header', 1024 * 1024)
  const first = isObject(digests) ? digests['0'] : undefined
  return isObject(first) ? `${first.digest}` : ''
}
