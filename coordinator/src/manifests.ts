import { canonicalJson, defined, parseJson } from '@holdfast/base'
import type { Manifest } from '@holdfast/protocol'
import { record } from './audit.ts'
import {
  type Ceremony,
  type CeremonyDeps,
  ceremonyHolders,
  closeCeremony,
  listCeremonies,
  type NewCeremony,
  openCeremony,
} from './ceremonies.ts'
import { ceremonyFault } from './ceremony-faults.ts'
import type { Coordinator } from './coordinator.ts'
import { coordinatorFault } from './faults.ts'
import { beginHolderChange, headerHolders } from './holders.ts'
import { diffManifests, manifestDigest, readManifest } from './manifest-diff.ts'
import type { Work } from './store.ts'
import { putUser } from './users.ts'

// The manifest's life: checked, approved, in force, kept. A change needs the approvals that the
// manifest in force asks for, over the digest of the new one; a change of holders then goes through
// its own two phases.

export interface StoredManifest {
  version: number
  digest: string
  manifest: Manifest
}

/** The manifest in force; undefined before the first. */
export async function currentManifest(
  coordinator: Coordinator,
): Promise<StoredManifest | undefined> {
  const row = await coordinator.store.read
    .selectFrom('manifests')
    .selectAll()
    .orderBy('version', 'desc')
    .limit(1)
    .executeTakeFirst()
  if (row === undefined) return undefined
  return {
    version: row.version,
    digest: row.digest,
    manifest: readManifest(parseJson(row.body, 'the manifest')),
  }
}

/** The version in force, 0 when there is none. */
export async function manifestVersion({ store }: Coordinator): Promise<number> {
  const row = await store.read
    .selectFrom('manifests')
    .select(({ fn }) => fn.max('version').as('version'))
    .executeTakeFirst()
  return Number(row?.version ?? 0)
}

/** The manifest in force. @throws Fault coordinator.not_in_this_state when there is none yet */
export async function requireManifest(coordinator: Coordinator): Promise<Manifest> {
  const current = await currentManifest(coordinator)
  if (current !== undefined) return current.manifest
  throw coordinatorFault('coordinator.not_in_this_state', 'there is no manifest yet', {
    hint: 'holdfast manifest set FILE',
  })
}

/**
 * The holders to whom anything may be sealed: those of the sealed state, who have proven their shares.
 * The manifest's own may not have yet, and nobody must lose a way in to keys that nobody has shown.
 */
export function provenHolders(
  { header }: Pick<Coordinator, 'header'>,
  { holders }: Pick<Manifest, 'holders'>,
): Manifest['holders'] {
  const proven = header?.holders
  if ('none' in holders || proven === undefined) return holders
  const { threshold, list } = proven
  return { threshold, keys: Object.fromEntries(list.map(({ name, key }) => [name, key])) }
}

/** Approvals by holders that a change of the manifest in force needs; 0 for the first one. */
export function approvalsNeeded(current: StoredManifest | undefined): number {
  if (current === undefined || 'none' in current.manifest.holders) return 0
  return current.manifest.approvals ?? current.manifest.holders.threshold
}

/**
 * Sets a manifest, or begins the ceremony that must approve it.
 * @returns its digest, and the ceremony when one is needed
 */
export async function proposeManifest(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  value: unknown,
  actor: string,
): Promise<{ digest: string; ceremony?: Ceremony }> {
  const manifest = readManifest(value)
  const digest = manifestDigest(manifest)
  const current = await currentManifest(coordinator)
  if (current?.digest === digest)
    return { digest, ...defined({ ceremony: await continueHolderChange(coordinator, deps) }) }
  const wanted = approvalOf(coordinator, current, manifest)
  const ceremony =
    wanted === undefined
      ? await enactManifest(coordinator, deps, manifest, actor, [])
      : await openCeremony(deps, wanted, actor)
  return { digest, ...defined({ ceremony }) }
}

/**
 * Begins the ceremony that approves a manifest.
 * @throws Fault ceremony.not_needed, coordinator.manifest_invalid
 */
export async function openApproval(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  value: unknown,
  actor: string,
): Promise<Ceremony> {
  const wanted = approvalOf(coordinator, await currentManifest(coordinator), readManifest(value))
  if (wanted !== undefined) return await openCeremony(deps, wanted, actor)
  throw ceremonyFault('ceremony.not_needed', 'this manifest needs no approval', {
    hint: 'holdfast manifest set FILE',
  })
}

/** The ceremony that a change needs; none until the first holders have proven their shares. */
function approvalOf(
  { header }: Coordinator,
  current: StoredManifest | undefined,
  manifest: Manifest,
): NewCeremony | undefined {
  requireNamedUsers(current, manifest)
  const approvals = approvalsNeeded(current)
  if (approvals === 0 || header?.holders === undefined) return undefined
  const changes = diffManifests(current?.manifest, manifest).map(({ path }) => path)
  return {
    kind: 'manifest',
    digest: manifestDigest(manifest),
    generation: header.generation,
    // While a change of holders is under way, those of before decide, and they may be fewer.
    threshold: Math.min(approvals, header.holders.list.length),
    holders: ceremonyHolders(header),
    detail: { manifest, changes, base: current?.digest ?? null },
  }
}

/**
 * Naming nobody leaves everybody who is there: before the first manifest with users that is whoever has
 * claimed the coordinator. Later it would say that all were removed, and remove nobody.
 */
function requireNamedUsers(current: StoredManifest | undefined, { users }: Manifest): void {
  const before = Object.keys(current?.manifest.users ?? {})
  if (before.length === 0 || Object.keys(users).length > 0) return
  const message = `it names nobody, and the one in force names ${before.join(', ')}`
  throw coordinatorFault(
    'coordinator.manifest_invalid',
    `the manifest is not valid: users: ${message}`,
    {
      hint: 'name the users who are to stay: holdfast manifest get shows them',
      details: { issues: [{ path: 'users', message }] },
    },
  )
}

/** Puts an approved manifest in force. Returns the holders' ceremony if their circle changes. */
export async function enactManifest(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  manifest: Manifest,
  actor: string,
  approvedBy: readonly string[],
  approved?: Ceremony,
): Promise<Ceremony | undefined> {
  const digest = manifestDigest(manifest)
  await deps.store.write(async (work) => {
    const last = await work
      .selectFrom('manifests')
      .select(['version', 'digest'])
      .orderBy('version', 'desc')
      .limit(1)
      .executeTakeFirst()
    if (approved !== undefined && !(await isDue(work, approved, last?.digest))) return
    const version = (last?.version ?? 0) + 1
    const row = {
      version,
      digest,
      body: canonicalJson(manifest),
      at: deps.clock.now(),
      by: actor,
      approved_by: canonicalJson(approvedBy),
    }
    await work.insertInto('manifests').values(row).execute()
    await putUsers(work, manifest)
    if (approved !== undefined) await closeCeremony(work, approved.id, 'done')
    await record(work, deps.clock, {
      actor,
      action: 'manifest.set',
      subject: digest,
      outcome: 'done',
      data: { version, approvedBy },
    })
  })
  await coordinator.manifestChanged()
  return await changeHolders(coordinator, deps, manifest, actor)
}

/**
 * Whether the ceremony still has this to do: another instance may have done it.
 * @throws Fault ceremony.superseded when it was approved as a change of another manifest than the one
 *   in force by now; putting it in force would undo what came between
 */
async function isDue(work: Work, approved: Ceremony, inForce = ''): Promise<boolean> {
  const row = await work
    .selectFrom('ceremonies')
    .select('state')
    .where('id', '=', approved.id)
    .executeTakeFirst()
  if (row?.state !== 'met') return false
  if (approved.detail.base === inForce) return true
  throw ceremonyFault(
    'ceremony.superseded',
    'another manifest has come into force since this one was proposed',
    { hint: 'look at what would change now, and propose it again: holdfast manifest diff FILE' },
  )
}

/**
 * Begins the change of holders that the manifest in force asks for, if it was never begun: a crash
 * or a failure may have come between the two.
 */
export async function continueHolderChange(
  coordinator: Coordinator,
  deps: CeremonyDeps,
): Promise<Ceremony | undefined> {
  const current = await currentManifest(coordinator)
  if (current === undefined || 'none' in current.manifest.holders) return undefined
  const open = await listCeremonies(deps, ['open', 'met'])
  if (open.some(({ kind }) => kind === 'holders')) return undefined
  return await changeHolders(coordinator, deps, current.manifest, 'coordinator')
}

async function changeHolders(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  manifest: Manifest,
  actor: string,
): Promise<Ceremony | undefined> {
  if ('none' in manifest.holders) return undefined
  const wanted = headerHolders(manifest.holders)
  if (canonicalJson(wanted) === canonicalJson(coordinator.header?.holders ?? null)) return undefined
  return await beginHolderChange(coordinator, deps, wanted, actor)
}

/** Users follow the manifest: new ones wait for a password, removed ones and their sessions go. */
async function putUsers(work: Work, manifest: Manifest): Promise<void> {
  const rows = await work.selectFrom('users').select(['name', 'roles']).execute()
  const wanted = Object.entries(manifest.users)
  for (const [name, { roles }] of wanted) {
    const present = rows.find((row) => row.name === name)
    if (present === undefined) await putUser(work, name, roles)
    else
      await work
        .updateTable('users')
        .set({ roles: canonicalJson(roles) })
        .where('name', '=', name)
        .execute()
  }
  if (wanted.length === 0) return // a manifest without users leaves the claimer's alone
  const names = wanted.map(([name]) => name)
  await work.deleteFrom('users').where('name', 'not in', names).execute()
  await work.deleteFrom('sessions').where('user', 'not in', names).execute()
  await work.deleteFrom('tokens').where('user', 'not in', names).execute()
}
