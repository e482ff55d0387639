import { join } from 'node:path'
import { run, Secret } from '@holdfast/base'
import { createPins, type Policy } from '@holdfast/seal'
import {
  createVault,
  type KeyDerivation,
  type UnlockOptions,
  unlockVault,
  type VaultDeps,
  type VolumeRef,
} from '@holdfast/vault'
import type { Stage } from './drill.ts'
import { makeImage, type RunningFleet, startLocalFleet } from './local-fleet.ts'
import { launchServers, type ServerProcess } from './server-process.ts'

// What the drills have in common: setting a scene, and the two claims they make of a volume: that it
// opens, and that it stays shut.

const volumeSize = 32 * 1024 * 1024
/** Milliseconds for a pin: those that are away refuse at once, and the others may be slow. */
const patience = 60_000

/** Argon2id as an owner's passphrase has it, at the smallest cost there is: drills type it often. */
export const smallArgon: KeyDerivation = {
  kind: 'argon2id',
  iterations: 4,
  memoryKiB: 32 * 1024,
  parallel: 1,
}

/** How a volume says that nothing opens it now; with a single pin it is that pin's own fault. */
export const shut = ['vault.no_way_in', 'seal.server_unreachable', 'seal.server_refused']

/** A local fleet as a drill's scene: three key servers, two of which open; two of three holders. */
export async function setFleet(
  { directory, command, timeline, signal, cleanup }: Stage,
  sizes: { servers?: number; threshold?: number } = {},
): Promise<RunningFleet> {
  const place = join(directory, 'fleet')
  const fleet = await startLocalFleet({ directory: place, command, volumeSize, ...sizes }, signal)
  cleanup.use(fleet)
  timeline.note('a fleet is up', {
    servers: fleet.servers.map(({ url, pid }) => ({ url, pid })),
    threshold: sizes.threshold ?? 2,
    holders: fleet.holders.map(({ name }) => name),
  })
  return fleet
}

/** Key servers alone, in processes of their own. */
export async function setServers(stage: Stage, names: readonly string[]): Promise<ServerProcess[]> {
  const { directory, command, timeline, signal, cleanup } = stage
  const places = names.map((name) => ({ name, home: join(directory, name), command }))
  const servers = await launchServers(cleanup, places)
  signal.throwIfAborted()
  const shown = servers.map(({ name, url, pid }) => ({ name, url, pid }))
  timeline.note('key servers are up', { servers: shown })
  return servers
}

/** A machine by itself: its key servers are all it can ask, and nobody sits before it. */
export function unattended(stateDirectory: string): VaultDeps {
  return { pins: createPins(), stateDirectory, actor: 'the machine' }
}

/** A volume with an owner's passphrase, which comes back with it. */
export interface OwnedVolume extends VolumeRef {
  owner: Secret
}

/** Makes a volume bound to a policy, and an owner's passphrase for it. */
export async function makeOwned(
  { directory, cleanup, signal }: Stage,
  deps: VaultDeps,
  name: string,
  automatic: Policy,
  options: { reachable?: boolean } = {},
): Promise<OwnedVolume> {
  const { device } = await makeImage(join(directory, `${name}.img`), volumeSize)
  const owner = Secret.copy(Secret.random(24).reveal().toString('base64url'))
  cleanup.use(owner)
  const how = { automatic, owner, ownerDerivation: smallArgon, signal, ...options }
  await createVault(deps, { device }, how)
  return { device, owner }
}

/** Claims that a volume opens now, and says by which keyslot. */
export async function opens(
  { timeline, signal }: Stage,
  step: string,
  deps: VaultDeps,
  { device }: VolumeRef,
  options: UnlockOptions = {},
): Promise<void> {
  const limits = { timeout: patience, signal, testOnly: true }
  const { keyslot, by } = await unlockVault(deps, { device }, { ...limits, ...options })
  timeline.proves(step, true, { device, by, ...(keyslot === undefined ? {} : { keyslot }) })
}

/** Claims that nothing at hand opens the volume now. */
export async function staysShut(
  { timeline, signal }: Stage,
  step: string,
  deps: VaultDeps,
  { device }: VolumeRef,
  options: UnlockOptions = {},
): Promise<void> {
  const limits = { timeout: patience, signal, testOnly: true }
  await timeline.refuses(step, shut, () => unlockVault(deps, { device }, { ...limits, ...options }))
}

/** Claims that a passphrase, typed at the console, opens the volume without any binding. */
export async function passphraseOpens(
  stage: Stage,
  step: string,
  volume: VolumeRef,
  passphrase: Secret,
): Promise<void> {
  const deps = unattended(join(stage.directory, 'console'))
  await opens(stage, step, deps, volume, typed(passphrase))
}

/** Claims that a passphrase opens no keyslot of the volume. */
export async function passphraseIsDead(
  { directory, timeline }: Stage,
  step: string,
  { device }: VolumeRef,
  passphrase: Secret,
): Promise<void> {
  const deps = unattended(join(directory, 'console'))
  await timeline.refuses(step, ['vault.passphrase_wrong'], () =>
    unlockVault(deps, { device }, { testOnly: true, ...typed(passphrase) }),
  )
}

function typed(passphrase: Secret): UnlockOptions {
  return { purposes: [], passphrase: async () => passphrase.clone() }
}

/** A byte copy of a disk, as a thief or a backup has it. */
export async function copyDisk({ device }: VolumeRef, to: string): Promise<VolumeRef> {
  await run('cp', ['--sparse=always', '--', device, to])
  return { device: to }
}

/** Thumbprints of the keys a server has now, current and hidden. */
export async function keysOf(server: ServerProcess): Promise<string[]> {
  const { keys } = await server.administration.list()
  return keys.filter(({ state }) => state !== 'retired').map(({ kid }) => kid)
}
