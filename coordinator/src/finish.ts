import { type Ceremony, type CeremonyDeps, stateOf } from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
import { dismiss } from './dismissal.ts'
import { finishHolderChange } from './holders.ts'
import { readManifest } from './manifest-diff.ts'
import { enactManifest } from './manifests.ts'
import { finishRecovery } from './recovery.ts'
import { finishRollback } from './rollback.ts'

/**
 * Does what a met ceremony has decided; may be called again after a crash, by any instance. Whoever
 * hands in the last answer and the duty that resumes what a crash left may do so at once, here and on
 * other instances: it is done once, and who comes late has nothing to complain of.
 */
export async function finish(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  ceremony: Ceremony,
): Promise<void> {
  try {
    await carryOut(coordinator, deps, ceremony)
  } catch (error) {
    const state = await stateOf(deps.store.read, ceremony.id)
    // A dismissal takes its own record with it.
    if (state !== 'done' && !(state === undefined && ceremony.kind === 'dismissal')) throw error
    await coordinator.refresh()
  }
}

async function carryOut(
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
      await dismiss(coordinator, 'holders', people, ceremony.id)
      return
    default:
      ceremony.kind satisfies never
  }
}
