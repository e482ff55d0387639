import type { CurveName } from '@holdfast/crypto'
import { readDirectory } from './directory.ts'
import type { KeyUse, StoredKey } from './key.ts'
import { hiddenSince, type KeyState, readState } from './state.ts'
import { readUsage, type Usage } from './usage.ts'

/** One key as an operator sees it. Times in milliseconds since 1970. */
export interface KeyReport {
  /** Thumbprint with SHA-256. */
  readonly kid: string
  /** All five thumbprints; empty for a key that is gone. */
  readonly thumbprints: readonly string[]
  readonly use: KeyUse
  readonly crv: string
  readonly prefix: string
  readonly state: 'advertised' | 'hidden' | 'retired'
  readonly created?: number
  /** Since when it is in its state, if it is not advertised. */
  readonly since?: number
  /** The last successful recovery with it. */
  readonly lastUsed?: number
  /** Successful recoveries on record. */
  readonly uses: number
  readonly compromised?: { readonly at: number; readonly note: string }
  /** Why it was destroyed. */
  readonly reason?: string
}

/** Everything known about the keys of a directory. */
export interface Inventory {
  readonly directory: string
  readonly keys: readonly KeyReport[]
  readonly prefixes: readonly string[]
  readonly problems: readonly { readonly file: string; readonly reason: string }[]
  /** Why recoveries are on hold, if they are. */
  readonly hold?: { readonly at: number; readonly reason: string }
}

/**
 * Lists the keys of a directory with their life so far: advertised first, then hidden, then retired,
 * the newest of each first.
 * @throws Fault keyserver.directory_unreadable, base.record_damaged
 */
export async function listKeys(directory: string): Promise<Inventory> {
  const keySet = await readDirectory(directory)
  const state = await readState(directory)
  const usage = await readUsage(directory)
  const present = keySet.keys.map((key) => reportOf(key, state, usage))
  const gone = Object.entries(state.destroyed).map(([kid, { at, reason, prefix, use, crv }]) => ({
    kid,
    thumbprints: [],
    use,
    crv,
    prefix,
    state: 'retired' as const,
    since: at,
    reason,
    ...usesOf(kid, usage),
    ...markOf(kid, state),
  }))
  gone.sort((a, b) => b.since - a.since || (a.kid < b.kid ? -1 : 1)) // the record has them by name
  const order = ['advertised', 'hidden', 'retired']
  const keys = [...present.filter((key) => state.destroyed[key.kid] === undefined), ...gone]
  return {
    directory,
    keys: keys.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state)),
    prefixes: keySet.prefixes,
    problems: keySet.problems.map(({ file, reason }) => ({ file, reason })),
    ...(state.hold === undefined ? {} : { hold: state.hold }),
  }
}

/** The report of one key that is there. */
export function reportOf(key: StoredKey, state: KeyState, usage: Usage): KeyReport {
  const since = hiddenSince(key, state)
  return {
    kid: key.kid,
    thumbprints: key.thumbprints,
    use: key.use,
    crv: key.crv satisfies CurveName,
    prefix: key.prefix,
    state: key.hidden ? 'hidden' : 'advertised',
    created: key.created,
    ...(since === undefined ? {} : { since }),
    ...usesOf(key.kid, usage),
    ...markOf(key.kid, state),
  }
}

function usesOf(kid: string, usage: Usage): Pick<KeyReport, 'uses' | 'lastUsed'> {
  const use = usage[kid]
  return use === undefined ? { uses: 0 } : { uses: use.count, lastUsed: use.last }
}

function markOf(kid: string, { compromised }: KeyState): Pick<KeyReport, 'compromised'> {
  const mark = compromised[kid]
  return mark === undefined ? {} : { compromised: mark }
}
