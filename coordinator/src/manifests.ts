import { canonicalJson, parseJson } from '@holdfast/base'
import type { Manifest } from '@holdfast/protocol'
import { record } from './audit.ts'
import {
  type Ceremony,
  type CeremonyDeps,
  ceremonyHolders,
  closeCeremony,
  listCeremonies,
  openCeremony,
} from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
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
  if (current?.digest === digest) {
    const ceremony = await continueHolderChange(coordinator, deps)
    return { digest, ...(ceremony === undefined ? {} : { ceremony }) }
  }
  const approvals = approvalsNeeded(current)
  const { header } = coordinator
  // Until the first holders have proven their shares there is nobody who could approve.
  if (approvals === 0 || header?.holders === undefined) {
    const ceremony = await enactManifest(coordinator, deps, manifest, actor, [])
    return { digest, ...(ceremony === undefined ? {} : { ceremony }) }
  }
  const changes = diffManifests(current?.manifest, manifest).map(({ path }) => path)
  const wanted = {
    kind: 'manifest' as const,
    digest,
    generation: header.generation,
    threshold: approvals,
    holders: ceremonyHolders(header),
    detail: { manifest, changes },
  }
  return { digest, ceremony: await openCeremony(deps, wanted, actor) }
}

/** Puts an approved manifest in force. Returns the holders' ceremony if their circle changes. */
export async function enactManifest(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  manifest: Manifest,
  actor: string,
  approvedBy: readonly string[],
  ceremonyId?: string,
): Promise<Ceremony | undefined> {
  const digest = manifestDigest(manifest)
  await deps.store.write(async (work) => {
    const last = await work
      .selectFrom('manifests')
      .select('version')
      .orderBy('version', 'desc')
      .limit(1)
      .executeTakeFirst()
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
    if (ceremonyId !== undefined) await closeCeremony(work, ceremonyId, 'done')
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
