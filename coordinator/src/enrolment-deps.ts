import type { Clock } from '@holdfast/base'
import type { Coordinator } from './coordinator.ts'
import type { EnrolmentDeps } from './enrolment-driver.ts'
import { provenHolders, requireManifest } from './manifests.ts'

/**
 * What enrolling needs of a coordinator, whose instances nodes find at these `https://host:port`. A new
 * vault is bound to holders who have proven their keys, whatever the manifest names since.
 */
export function enrolmentDeps(
  coordinator: Coordinator,
  clock: Clock,
  coordinators: readonly string[],
): EnrolmentDeps {
  return {
    store: coordinator.store,
    clock,
    cluster: () => coordinator.header?.cluster ?? '',
    authority: () => coordinator.header?.authority ?? '',
    secret: (name) => coordinator.secret(name),
    manifest: async () => {
      const manifest = await requireManifest(coordinator)
      return { ...manifest, holders: provenHolders(coordinator, manifest) }
    },
    coordinators,
    identity: coordinator.identity.digest,
  }
}
