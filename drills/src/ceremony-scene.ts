import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Secret } from '@holdfast/base'
import type { ApiClient } from '@holdfast/link/api-client'
import {
  type ceremonyKinds,
  ceremonyRoutes,
  type ManifestInput,
  manifestRoutes,
  statusRoutes,
  userRoutes,
} from '@holdfast/protocol'
import { answer, type CeremonyView, type HolderKey, softwareKey } from './ceremony-holder.ts'
import { CoordinatorProcess, type CoordinatorStatus } from './coordinator-process.ts'
import type { Stage } from './drill.ts'
import { type LocalHolder, makeHolders } from './holders.ts'

// What the drills of ceremonies have in common: a coordinator of their own, claimed, with holders who
// have proven their shares; its loss; and the claims they make of its state.

export interface Scene {
  readonly coordinator: CoordinatorProcess
  /** The owner, by an API token with the role admin. */
  readonly owner: ApiClient
  /** The owner's, made for this drill. */
  readonly password: Secret
  readonly holders: readonly LocalHolder[]
  readonly keys: readonly HolderKey[]
  readonly threshold: number
}

export interface SceneOptions {
  holders?: number
  threshold?: number
  /** A file with the addresses of PostgreSQL. */
  store?: string
  /** Keys of holders beside those of this machine's making, as PEM. */
  others?: Readonly<Record<string, string>>
}

/** A running coordinator with `threshold` of `holders`, the first of whom have proven their shares. */
export async function setCoordinator(stage: Stage, options: SceneOptions = {}): Promise<Scene> {
  const { holders: count = 3, threshold = 2, store, others = {} } = options
  const { directory, timeline, cleanup, signal } = stage
  const holders = await makeHolders(join(directory, 'holders'), count)
  const place = { name: 'one', directory: join(directory, 'one'), command: stage.coordinator }
  const coordinator = await CoordinatorProcess.launch({
    ...place,
    ...(store === undefined ? {} : { store }),
  })
  cleanup.use(coordinator)
  signal.throwIfAborted()
  const password = cleanup.use(newPassword())
  const owner = cleanup.use(coordinator.client({ token: await claim(coordinator, {}, password) }))
  const keys = holders.map(softwareKey)
  const manifest = manifestOf(threshold, { ...publicKeys(holders), ...others })
  const ceremony = await setManifest(owner, manifest)
  for (const key of keys.slice(0, threshold)) await answer(owner, ceremony.id, key)
  const { state, reason } = await coordinator.status()
  timeline.proves('a coordinator runs, its holders have proven their shares', state === 'running', {
    ...{ url: coordinator.url, pid: coordinator.pid ?? 0, state, reason },
    ...{ threshold, holders: [...keys.map(({ name }) => name), ...Object.keys(others)] },
  })
  return { coordinator, owner, password, holders, keys, threshold }
}

function newPassword(): Secret {
  return Secret.copy(Secret.random(18).reveal().toString('base64url'))
}

/** Claims with the token from its disk; returns an API token of its owner. */
export async function claim(
  coordinator: CoordinatorProcess,
  also: { recoveryOfOldState?: 'give up' } = {},
  password = newPassword(),
): Promise<string> {
  using client = coordinator.client()
  const user = { user: 'owner', password: password.reveal().toString('utf8') }
  const token = (await readFile(coordinator.claimToken, 'utf8')).trim()
  await client.call(statusRoutes.claim, { body: { token, ...user, ...also } })
  return await signIn(client, password)
}

/** The owner signs in with the password and makes an API token. */
export async function signIn(client: ApiClient, password: Secret): Promise<string> {
  const user = { user: 'owner', password: password.reveal().toString('utf8') }
  const { value, cookie } = await client.send(userRoutes.login, { body: user })
  const made = await client.call(userRoutes.createToken, {
    headers: { cookie, 'x-csrf-token': value.csrf },
    body: { label: 'drill', scopes: ['admin'], days: 1 },
  })
  return made.token
}

export function publicKeys(holders: readonly LocalHolder[]): Record<string, string> {
  return Object.fromEntries(
    holders.map(({ name, publicKey }) => [
      name,
      publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    ]),
  )
}

export function manifestOf(threshold: number, keys: Record<string, string>): ManifestInput {
  return { version: 1, cluster: 'drill', holders: { threshold, keys } }
}

/** Sets a manifest; returns the ceremony that it begins: of its approval, or of its new holders. */
export async function setManifest(
  owner: ApiClient,
  manifest: ManifestInput,
): Promise<CeremonyView> {
  const { ceremony } = await owner.call(manifestRoutes.set, { body: { manifest } })
  if (ceremony === undefined) throw new Error('a manifest with new holders begins a ceremony')
  return ceremony
}

export async function begin(
  client: ApiClient,
  kind: (typeof ceremonyKinds)[number],
): Promise<CeremonyView> {
  return await client.call(ceremonyRoutes.open, { body: { kind } })
}

/** The machine dies and comes back without its host key: only people can open the state now. */
export async function loseHostKey(
  { timeline }: Stage,
  coordinator: CoordinatorProcess,
): Promise<CoordinatorStatus> {
  await coordinator.kill()
  await rm(join(coordinator.directory, 'host.key'))
  await coordinator.start()
  const status = await coordinator.status()
  const { state, reason, identity } = status
  const sealed = state === 'recovery' && reason === 'key_missing'
  timeline.proves('killed, and back without its host key it is sealed', sealed, {
    ...{ state, reason, identity },
  })
  return status
}

/** Claims that the coordinator is in this state. */
export async function isNow(
  { timeline }: Stage,
  step: string,
  coordinator: CoordinatorProcess,
  wanted: { state: string; reason?: string },
): Promise<CoordinatorStatus> {
  const status = await coordinator.status()
  const { state, reason, generation } = status
  const right = state === wanted.state && (wanted.reason === undefined || reason === wanted.reason)
  timeline.proves(step, right, { state, reason, ...(generation ? { generation } : {}) })
  return status
}
