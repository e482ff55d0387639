import { type Clock, isFault, messageOf } from '@holdfast/base'
import { record } from './audit.ts'
import {
  type Ceremony,
  type CeremonyDeps,
  closeCeremony,
  expire,
  keptShares,
  listCeremonies,
  requireMet,
} from './ceremonies.ts'
import type { Coordinator } from './coordinator.ts'
import { finish } from './finish.ts'
import { continueHolderChange } from './manifests.ts'
import { combine, holdersWay } from './recovery.ts'

// What a crash, or another instance, has left to do. Run at start and then every few seconds: a
// ceremony that was met is finished, a recovery by another instance is followed, a holder change
// that the manifest asks for is begun. Each step may fail and is simply tried again.

export interface ResumeEvent {
  what: 'finished' | 'followed' | 'given up' | 'failed'
  subject: string
  reason?: string
}

/** One round. Faults of a step are reported, not thrown: the next round tries again. */
export async function resume(coordinator: Coordinator, deps: CeremonyDeps): Promise<ResumeEvent[]> {
  const events: ResumeEvent[] = []
  const attempt = async (subject: string, step: () => Promise<ResumeEvent | undefined>) => {
    try {
      const event = await step()
      if (event !== undefined) events.push(event)
    } catch (error) {
      events.push({ what: 'failed', subject, reason: messageOf(error) })
    }
  }
  await attempt('store', async () => {
    await coordinator.refresh()
    return undefined
  })
  const { header, reason, witnessed } = coordinator
  if (reason === 'storage_unreachable' || header === undefined) return events
  await attempt('ceremonies', async () => {
    await expire(deps)
    // Before it was open once, this host's own witness has not been looked at.
    if (witnessed > 0)
      await coordinator.host.note({ cluster: header.cluster, generation: witnessed })
    return undefined
  })
  for (const ceremony of await listCeremonies(deps, ['met']))
    await attempt(ceremony.id, () => finishOrGiveUp(coordinator, deps, ceremony))
  await attempt('recovery', () => follow(coordinator, deps))
  await attempt('holders', async () => {
    if (coordinator.state !== 'running') return undefined
    const begun = await continueHolderChange(coordinator, deps)
    return begun === undefined ? undefined : { what: 'finished', subject: begun.id }
  })
  return events
}

async function finishOrGiveUp(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  ceremony: Ceremony,
): Promise<ResumeEvent | undefined> {
  const needsKey = ceremony.kind !== 'recovery' && ceremony.kind !== 'dismissal'
  const open = coordinator.state === 'ready' || coordinator.state === 'running'
  if (needsKey && !open && coordinator.reason !== 'rollback_suspected') return undefined
  if (ceremony.kind === 'recovery' && open) return undefined // another way opened it first
  try {
    await finish(coordinator, deps, ceremony)
    return { what: 'finished', subject: ceremony.id }
  } catch (error) {
    // What cannot fit any more never will: the state it was met for has been replaced.
    if (!isFault(error) || (error.kind !== 'integrity' && error.kind !== 'invalid')) throw error
    await deps.store.write(async (work) => {
      await requireMet(work, ceremony.id)
      await closeCeremony(work, ceremony.id, 'cancelled')
      await record(work, deps.clock, {
        actor: 'coordinator',
        action: 'ceremony.give_up',
        subject: ceremony.id,
        outcome: 'failed',
        data: { code: error.code },
      })
    })
    return { what: 'given up', subject: ceremony.id, reason: error.code }
  }
}

/** Opens with the shares of a ceremony that another instance has finished a moment ago. */
async function follow(
  coordinator: Coordinator,
  deps: CeremonyDeps,
): Promise<ResumeEvent | undefined> {
  const { header, sealedAt = 0, seals } = coordinator
  if (coordinator.reason !== 'key_missing') return undefined
  for (const ceremony of await listCeremonies(deps, ['done'])) {
    const fits = ceremony.kind === 'recovery' || ceremony.kind === 'holders'
    if (!fits || ceremony.generation !== header?.generation || ceremony.created <= sealedAt)
      continue
    const kept = await keptShares(deps, ceremony.id)
    if (kept.length < ceremony.threshold || kept.some(({ sealed }) => sealed === '')) continue
    const sealed = await holdersWay(coordinator, 'active')
    using plaintext = await combine(coordinator, deps, ceremony, sealed)
    await coordinator.openWith(plaintext, seals)
    return { what: 'followed', subject: ceremony.id }
  }
  return undefined
}

/** Resumes until the signal, every `interval` milliseconds. */
export async function keepResuming(
  coordinator: Coordinator,
  deps: CeremonyDeps,
  options: {
    clock: Clock
    interval: number
    report: (event: ResumeEvent) => void
  },
  signal: AbortSignal,
): Promise<void> {
  const { clock, interval, report } = options
  while (!signal.aborted) {
    try {
      for (const event of await resume(coordinator, deps)) report(event)
    } catch (error) {
      report({ what: 'failed', subject: 'round', reason: messageOf(error) })
    }
    await clock.sleep(interval, signal).catch(() => undefined)
  }
}
