import { resolve } from 'node:path'
import { isFault, messageOf, systemClock } from '@holdfast/base'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { applyStep } from './panic-apply.ts'
import type { PanicPlan } from './panic-plan.ts'
import {
  type PanicJournal,
  type PanicStep,
  type Pending,
  panicJournal,
  type StepOutcome,
} from './panic-record.ts'
import { type StoredReceipt, writeReceipt } from './receipt.ts'
import type { VaultDeps } from './state.ts'

// Runs the steps of a journalled wipe. A step that fails does not keep the later ones from being
// done: with a dying disk the backups still go. Only when all is done is there a receipt.

interface Failure {
  step: string
  reason: string
  code: string | undefined
}

/** The journal a wipe begins with. */
export function startJournal(
  deps: VaultDeps,
  volume: VolumeRef,
  plan: PanicPlan,
  pending: Pending,
): PanicJournal {
  const { plan: digest, nonce: id } = pending
  return {
    ...{ v: 1, id, uuid: plan.uuid, device: plan.device, level: plan.level, plan: digest },
    ...(volume.header === undefined ? {} : { header: resolve(volume.header) }),
    steps: [...plan.steps],
    done: [],
    survives: [...plan.survives],
    unreachable: plan.unreachable.map((copy) => ({ ...copy })),
    started: timestamp(deps),
    actor: deps.actor ?? 'unknown',
  }
}

/**
 * Does every step that is not done yet, then writes the receipt and ends the journal.
 * @throws Fault vault.wipe_unfinished when a step failed; the journal stays
 */
export async function finishPanic(
  deps: VaultDeps,
  journal: PanicJournal,
  acceptFailures: boolean,
): Promise<StoredReceipt> {
  const record = panicJournal(deps.stateDirectory, journal.uuid)
  const failures: Failure[] = []
  let current = journal
  for (const [index, step] of journal.steps.entries()) {
    if (current.done.some((outcome) => outcome.index === index)) continue
    const { outcome, error } = await attempt(deps, current, index, step)
    if (error !== undefined && !acceptFailures && !isTolerated(journal, step)) {
      const code = isFault(error) ? error.code : undefined
      failures.push({ step: step.do, reason: messageOf(error), code })
      continue
    }
    current = { ...current, done: [...current.done, outcome] }
    await record.write(current)
  }
  if (failures.length > 0) throw unfinished(journal, failures)
  return await conclude(deps, current)
}

async function attempt(
  deps: VaultDeps,
  journal: PanicJournal,
  index: number,
  step: PanicStep,
): Promise<{ outcome: StepOutcome; error?: unknown }> {
  const at = timestamp(deps)
  try {
    const applied = await applyStep(deps.stateDirectory, journal, step)
    return { outcome: { index, step, at, ...applied } }
  } catch (error) {
    const evidence = { reason: messageOf(error) }
    return { outcome: { index, step, at, result: 'failed', evidence }, error }
  }
}

/**
 * A busy mapping must not keep the keys alive, and keyslots that cryptsetup cannot erase are
 * overwritten with the header. Everything else is tried again on resuming.
 */
function isTolerated(journal: PanicJournal, step: PanicStep): boolean {
  return journal.level > 1 && (step.do === 'close_mapping' || step.do === 'erase_keyslots')
}

async function conclude(deps: VaultDeps, journal: PanicJournal): Promise<StoredReceipt> {
  const overwritten = journal.done.some(
    ({ step, result }) => step.do === 'overwrite_header' && result !== 'failed',
  )
  const failed = journal.done.filter(
    ({ step, result }) => result === 'failed' && !(overwritten && step.do === 'erase_keyslots'),
  )
  const unreachable = [
    ...failed.map(({ step, evidence }) => ({
      what: `what the step ${step.do} should have ended`,
      why: String(evidence.reason),
    })),
    ...journal.unreachable,
  ]
  const done = journal.done.toSorted((a, b) => a.index - b.index)
  const state = deps.stateDirectory
  const receipt = await writeReceipt(state, { ...journal, done, unreachable }, timestamp(deps))
  await panicJournal(state, journal.uuid).clear()
  return receipt
}

function unfinished(journal: PanicJournal, failures: readonly Failure[]): Error {
  const reasons = failures.map(({ step, reason }) => `${step}: ${reason}`).join('; ')
  return vaultFault('vault.wipe_unfinished', `the wipe of ${journal.device}: ${reasons}`, {
    hint: 'run it again: holdfast vault panic --resume',
    details: { failures },
  })
}

function timestamp(deps: VaultDeps): string {
  return new Date((deps.clock ?? systemClock).now()).toISOString()
}
