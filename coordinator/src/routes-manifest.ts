import { parseJson } from '@holdfast/base'
import { manifestRoutes } from '@holdfast/protocol'
import type { OpenAPIHono } from '@hono/zod-openapi'
import type { Ceremony, CeremonyDeps } from './ceremonies.ts'
import { coordinatorFault } from './faults.ts'
import { diffManifests, manifestDigest, readManifest } from './manifest-diff.ts'
import { approvalsNeeded, currentManifest, proposeManifest } from './manifests.ts'
import { mount, type ServerDeps } from './mount.ts'

export function mountManifest(
  app: OpenAPIHono,
  deps: ServerDeps,
  ceremonies: CeremonyDeps,
  shown: (ceremony: Ceremony) => object,
): void {
  const { coordinator } = deps
  mount(app, deps, manifestRoutes.get, async () => {
    const current = await currentManifest(coordinator)
    if (current === undefined)
      throw coordinatorFault('coordinator.not_in_this_state', 'no manifest has been set', {
        hint: 'holdfast manifest set FILE',
      })
    return current
  })
  mount(app, deps, manifestRoutes.set, async ({ body, caller }) => {
    const { digest, ceremony } = await proposeManifest(
      coordinator,
      ceremonies,
      body.manifest,
      `user:${caller?.user}`,
    )
    return { digest, ...(ceremony === undefined ? {} : { ceremony: shown(ceremony) }) } as never // `shown` gives the route's own shape
  })
  mount(app, deps, manifestRoutes.check, async ({ body }) => {
    const manifest = readManifest(body.manifest)
    const current = await currentManifest(coordinator)
    const changes = diffManifests(current?.manifest, manifest)
    const approvals = coordinator.header?.holders === undefined ? 0 : approvalsNeeded(current)
    return { digest: manifestDigest(manifest), changes, approvals }
  })
  mount(app, deps, manifestRoutes.history, async () => {
    const rows = await coordinator.store.read
      .selectFrom('manifests')
      .selectAll()
      .orderBy('version')
      .execute()
    const history = rows.map(({ version, digest, at, by, approved_by }) => {
      const approvedBy = parseJson(approved_by, 'the approvals')
      return { version, digest, at, by, approvedBy: Array.isArray(approvedBy) ? approvedBy : [] }
    })
    return { history }
  })
}
