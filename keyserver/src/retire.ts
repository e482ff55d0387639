import { type Clock, systemClock } from '@holdfast/base'
import { type ChangeResult, change, type Step } from './change.ts'
import { type KeySet, readDirectory } from './directory.ts'
import { keyserverFault } from './faults.ts'
import { type KeyReport, reportOf } from './inventory.ts'
import { readState } from './state.ts'
import { readUsage } from './usage.ts'

// Destroying a key is the only thing here that cannot be undone: every binding to it is gone for good.
// So a key must be hidden, unused for long enough, and needed by nobody who is known.

const day = 24 * 60 * 60 * 1000

export interface RetireOptions {
  /** Thumbprints (any hash) of the keys to destroy; without, every hidden key that may go. */
  readonly kids?: readonly string[]
  /** Days since the last use, and since it was hidden. Default 30. */
  readonly unusedDays?: number
  /** Thumbprints (any hash) that bindings still need. */
  readonly needed?: readonly string[]
  /** Destroy the named keys although they were used lately or are needed. */
  readonly force?: boolean
  /** Only say what would happen. */
  readonly dryRun?: boolean
}

/** Why a key stays, or what its going strands. */
export interface RetireObstacle {
  readonly kid: string
  readonly reasons: readonly string[]
  readonly lastUsed?: number
  /** The thumbprints of `needed` that name it. */
  readonly neededAs: readonly string[]
}

export interface RetirePlan {
  readonly destroy: readonly string[]
  /** Hidden keys that stay, and named keys that must stay. */
  readonly kept: readonly RetireObstacle[]
  /** Keys destroyed by force, with the bindings and clients that lose them. */
  readonly stranded: readonly RetireObstacle[]
}

/** Decides which keys go. `now` in milliseconds since 1970. */
export function planRetire(
  keys: readonly KeyReport[],
  { kids, unusedDays = 30, needed = [], force = false }: RetireOptions,
  now: number,
): RetirePlan {
  const present = keys.filter((key) => key.state !== 'retired')
  const chosen =
    kids === undefined
      ? present.filter((key) => key.state === 'hidden')
      : present.filter((key) => key.thumbprints.some((name) => kids.includes(name)))
  const destroy: string[] = []
  const kept: RetireObstacle[] = []
  const stranded: RetireObstacle[] = []
  for (const key of chosen) {
    const obstacle = obstacleOf(key, unusedDays * day, needed, now)
    if (obstacle.reasons.length === 0) destroy.push(key.kid)
    else if (force && kids !== undefined && key.state === 'hidden') {
      destroy.push(key.kid)
      stranded.push(obstacle)
    } else kept.push(obstacle)
  }
  return { destroy, kept, stranded }
}

function obstacleOf(
  key: KeyReport,
  unused: number,
  needed: readonly string[],
  now: number,
): RetireObstacle {
  const neededAs = needed.filter((name) => key.thumbprints.includes(name))
  const quiet = now - Math.max(key.lastUsed ?? 0, key.since ?? now)
  const days = Math.ceil(unused / day)
  const reasons = [
    ...(key.state === 'advertised' ? ['it is advertised: rotate first'] : []),
    ...(key.state === 'hidden' && quiet < unused
      ? [`it was used or advertised less than ${days} days ago`]
      : []),
    ...(neededAs.length > 0 ? ['bindings still need it'] : []),
  ]
  const { kid, lastUsed } = key
  return { kid, reasons, neededAs, ...(lastUsed === undefined ? {} : { lastUsed }) }
}

/**
 * Destroys hidden keys: marked, overwritten, removed. When keys are named, either all of them go or
 * none.
 * @throws Fault keyserver.key_absent, keyserver.retire_refused (details: `kept`)
 */
export async function retire(
  directory: string,
  options: RetireOptions = {},
  clock: Clock = systemClock,
): Promise<RetirePlan & { change?: ChangeResult }> {
  let plan: RetirePlan = { destroy: [], kept: [], stranded: [] }
  const decide = async (): Promise<Step[]> => {
    const keySet = await readDirectory(directory)
    const [state, usage] = [await readState(directory), await readUsage(directory)]
    const reports = keySet.keys.map((key) => reportOf(key, state, usage))
    plan = planRetire(reports, options, clock.now())
    if (options.kids !== undefined) requireAll(options.kids, reports, plan)
    return options.dryRun === true ? [] : destroySteps(keySet, plan.destroy, 'retired')
  }
  const result = await change(directory, 'retirement', decide, clock)
  return result.steps.length === 0 ? plan : { ...plan, change: result }
}

function requireAll(kids: readonly string[], keys: readonly KeyReport[], plan: RetirePlan): void {
  const absent = kids.find((kid) => !keys.some((key) => key.thumbprints.includes(kid)))
  if (absent !== undefined) {
    throw keyserverFault('keyserver.key_absent', `there is no key ${absent}`, {
      hint: 'holdfast keyserver keys lists the keys',
    })
  }
  const [first] = plan.kept
  if (first === undefined) return
  const advertised = plan.kept.some(({ reasons }) =>
    reasons.some((text) => /advertised:/.test(text)),
  )
  throw keyserverFault(
    'keyserver.retire_refused',
    `the key ${first.kid} stays: ${first.reasons.join('; ')}`,
    {
      hint: advertised
        ? 'holdfast keyserver rotate, then move the bindings, then retire'
        : 'move the bindings to the new key; --force destroys it and says what it strands',
      details: { kept: plan.kept },
    },
  )
}

/** The steps that destroy these keys. */
export function destroySteps(
  keySet: KeySet,
  kids: readonly string[],
  reason: string,
): Extract<Step, { do: 'destroy' }>[] {
  return keySet.keys
    .filter((key) => kids.includes(key.kid))
    .map(({ prefix, file, kid, use, crv }) => ({
      do: 'destroy',
      prefix,
      file,
      kid,
      use,
      crv,
      reason,
    }))
}
