import type { Ceremony, CeremonyDeps } from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
import { dismiss } from './dismissal.ts'
import { finishHolderChange } from './holders.ts'
import { readManifest } from './manifest-diff.ts'
import { enactManifest } from './manifests.ts'
import { finishRecovery } from './recovery.ts'
import { finishRollback } from './rollback.ts'

/** Does what a met ceremony has decided; may be called again after a crash, by any instance. */
export async function finish(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  ceremony: Ceremony,
): Promise<void> {
  const people = ceremony.answered.map(({ holder }) => holder)
  switch (ceremony.kind) {
    case 'recovery':
      return await finishRecovery(coordinator, deps, ceremony)
    case 'holders':
      await finishHolderChange(coordinator, deps, ceremony)
      return
    case 'manifest': {
      const manifest = readManifest(ceremony.detail.manifest)
      await enactManifest(coordinator, deps, manifest, 'holders', people, ceremony)
      return
    }
    case 'rollback':
      return await finishRollback(coordinator, deps, ceremony)
    case 'dismissal':
      await dismiss(coordinator, 'holders', people)
      return
    default:
      ceremony.kind satisfies never
  }
}
