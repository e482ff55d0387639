import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { ensureDirectory, systemClock } from '@holdfast/base'
import type { Policy } from '@holdfast/seal'
import type { VolumeRef } from './cryptsetup.ts'
import { vaultFault } from './faults.ts'
import { backupHeader } from './header-backup.ts'
import { gatherPanicFacts } from './panic-facts.ts'
import { type PanicPlan, planDigest, planPanic } from './panic-plan.ts'
import { type PanicLevel, panicDirectory, panicJournal, pendingPanic } from './panic-record.ts'
import { finishPanic, startJournal } from './panic-run.ts'
import type { StoredReceipt } from './receipt.ts'
import { audit, lockVault, type VaultDeps, vaultAt } from './state.ts'

// A wipe is prepared, confirmed, and then only ever goes forward. From the moment its journal is
// durable, nothing restores the volume until it is finished (level 2) or at all (level 3); a crash
// is followed by `resumePanic`.

export interface PanicOptions {
  /** The volume's UUID, needed when its header is already gone. */
  uuid?: string
  /** Level 2: seal a fresh header backup under this first, when there is none. */
  policy?: Policy
  /** Level 2 without a header backup: the caller knows that nothing brings the volume back. */
  acknowledgeIrreversible?: boolean
  /** How long the confirmation code is good for, in milliseconds. Default 5 minutes. */
  validFor?: number
}

export interface PreparedPanic {
  plan: PanicPlan
  /** To be given back to `executePanic`. */
  code: string
  /** Milliseconds since 1970. */
  expires: number
}

/** The dry run: what a wipe would do, what survives and what it cannot reach. Nothing is changed. */
export async function describePanic(
  deps: VaultDeps,
  volume: VolumeRef,
  level: PanicLevel,
  uuid?: string,
): Promise<PanicPlan> {
  return planPanic(level, await gatherPanicFacts(deps, volume, level, uuid))
}

/**
 * Prepares a wipe. Level 2 needs a sealed backup of the present header; one is made when a policy
 * is given, otherwise the caller must acknowledge that the volume never comes back.
 * @throws Fault vault.irreversible, vault.not_luks, vault.wipe_unfinished
 */
export async function preparePanic(
  deps: VaultDeps,
  volume: VolumeRef,
  level: PanicLevel,
  options: PanicOptions = {},
): Promise<PreparedPanic> {
  let facts = await gatherPanicFacts(deps, volume, level, options.uuid)
  await requireNoJournal(deps, facts.uuid)
  const lacking = level === 2 && facts.fresh === undefined
  if (lacking && options.policy !== undefined && facts.keyslots !== undefined) {
    await backupHeader(deps, volume, options.policy)
    facts = await gatherPanicFacts(deps, volume, level, options.uuid)
  }
  const plan = planPanic(level, facts)
  if (level === 2 && plan.wayBack === undefined && options.acknowledgeIrreversible !== true) {
    throw vaultFault(
      'vault.irreversible',
      `${volume.device} has no header backup of its present header: nothing would bring it back`,
      { hint: 'name holders to seal one to, or say that it is meant: --irreversible' },
    )
  }
  const expires = now(deps) + (options.validFor ?? 5 * 60_000)
  const nonce = randomBytes(16).toString('hex')
  const digest = planDigest(plan)
  await ensureDirectory(panicDirectory(deps.stateDirectory, facts.uuid))
  const pending = pendingPanic(deps.stateDirectory, facts.uuid)
  await pending.write({ v: 1, level, plan: digest, nonce, expires })
  return { plan, code: codeOf(digest, nonce), expires }
}

/**
 * Carries out a prepared wipe.
 * @param code what `preparePanic` gave, typed by somebody who has read the plan
 * @throws Fault vault.confirmation_wrong, vault.confirmation_expired, vault.changed_meanwhile
 *   before anything is done; vault.wipe_unfinished when a step failed
 */
export async function executePanic(
  deps: VaultDeps,
  volume: VolumeRef,
  uuid: string,
  code: string,
): Promise<StoredReceipt> {
  const vault = await vaultAt(deps, volume, uuid)
  await using _ = await lockVault(vault)
  await requireNoJournal(deps, uuid)
  const record = pendingPanic(deps.stateDirectory, uuid)
  const pending = await record.read()
  if (pending === undefined || !matches(code, codeOf(pending.plan, pending.nonce))) {
    throw vaultFault('vault.confirmation_wrong', 'this is not the code of a prepared wipe', {
      hint: 'prepare it again and read its plan: holdfast vault panic',
    })
  }
  if (now(deps) >= pending.expires) {
    throw vaultFault('vault.confirmation_expired', 'the confirmation code has expired', {
      hint: 'prepare it again and read its plan: holdfast vault panic',
    })
  }
  const facts = await gatherPanicFacts(deps, volume, pending.level, uuid)
  const plan = planPanic(pending.level, facts)
  if (planDigest(plan) !== pending.plan) {
    throw vaultFault('vault.changed_meanwhile', `${volume.device} is not as it was when prepared`, {
      hint: 'prepare it again and read its plan: holdfast vault panic',
    })
  }
  await audit(vault, 'panic', { level: plan.level, plan: pending.plan })
  const journal = startJournal(deps, volume, plan, pending)
  await panicJournal(deps.stateDirectory, uuid).write(journal)
  await record.clear()
  return await finishPanic(deps, journal, false)
}

/**
 * Finishes a wipe that was interrupted, or whose steps failed. Undefined when there is none.
 * @param acceptFailures end it although steps keep failing; the receipt names them
 * @throws Fault vault.wipe_unfinished
 */
export async function resumePanic(
  deps: VaultDeps,
  uuid: string,
  acceptFailures = false,
): Promise<StoredReceipt | undefined> {
  // Locked before looking: what another process has just finished must not be done once more.
  await using _ = await lockVault(await vaultAt(deps, { device: uuid }, uuid))
  const journal = await panicJournal(deps.stateDirectory, uuid).read()
  if (journal === undefined) return undefined
  return await finishPanic(deps, journal, acceptFailures)
}

async function requireNoJournal(deps: VaultDeps, uuid: string): Promise<void> {
  if ((await panicJournal(deps.stateDirectory, uuid).read()) === undefined) return
  throw vaultFault('vault.wipe_unfinished', `a wipe of volume ${uuid} is unfinished`, {
    hint: 'finish it first: holdfast vault panic --resume',
  })
}

const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

/** Eight letters in two groups, without those that are mistaken for others. */
function codeOf(digest: string, nonce: string): string {
  const bytes = createHash('sha256').update(`${digest}:${nonce}`).digest()
  const letters = [...bytes.subarray(0, 8)].map((byte) => alphabet[byte & 31]).join('')
  return `${letters.slice(0, 4)}-${letters.slice(4)}`
}

function matches(given: string, expected: string): boolean {
  const typed = Buffer.from(given.trim().toUpperCase())
  const wanted = Buffer.from(expected)
  return typed.length === wanted.length && timingSafeEqual(typed, wanted)
}

function now(deps: VaultDeps): number {
  return (deps.clock ?? systemClock).now()
}
