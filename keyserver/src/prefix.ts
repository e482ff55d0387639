import type { Clock } from '@holdfast/base'
import type { CurveName } from '@holdfast/crypto'
import { type ChangeResult, change, type Step } from './change.ts'
import { isPrefixName, readDirectory } from './directory.ts'
import { keyserverFault } from './faults.ts'
import { destroySteps } from './retire.ts'
import { requirePrefix } from './rotate.ts'
import { changeState, type KeyState } from './state.ts'

// A prefix is a base URL of its own, http://server/p/NAME, with its own exchange key and the common
// signing keys. A client bound to it can be revoked alone, and needs nothing but unmodified clevis.

/**
 * Makes a prefix with a new exchange key.
 * @throws Fault keyserver.prefix_invalid, keyserver.prefix_exists
 */
export async function addPrefix(
  directory: string,
  name: string,
  options: { curve?: CurveName } = {},
  clock?: Clock,
): Promise<ChangeResult> {
  if (!isPrefixName(name)) {
    throw keyserverFault('keyserver.prefix_invalid', `${JSON.stringify(name)} cannot be a prefix`, {
      hint: 'use up to 63 of a-z, 0-9, dot, hyphen and underscore, starting with a letter or digit',
    })
  }
  const decide = async (): Promise<Step[]> => {
    const { keys } = await readDirectory(directory)
    if (keys.some((key) => key.prefix === name && !key.hidden)) {
      throw keyserverFault('keyserver.prefix_exists', `the prefix ${name} exists`, {
        hint: `to replace its key: holdfast keyserver rotate --prefix ${name}`,
      })
    }
    const newest = keys.find((key) => key.use === 'exchange' && key.prefix === '' && !key.hidden)
    const crv = options.curve ?? newest?.crv ?? 'P-521'
    return [{ do: 'create', prefix: name, use: 'exchange', crv }]
  }
  return await change(directory, `new prefix ${name}`, decide, clock)
}

/**
 * Destroys every key of a prefix: what was bound to it never opens through this server again.
 * @throws Fault keyserver.prefix_absent
 */
export async function revokePrefix(
  directory: string,
  name: string,
  clock?: Clock,
): Promise<ChangeResult> {
  const decide = async (): Promise<Step[]> => {
    const keySet = await readDirectory(directory)
    requirePrefix(keySet, name)
    const kids = keySet.keys.filter((key) => key.prefix === name).map((key) => key.kid)
    const steps = destroySteps(keySet, kids, `prefix ${name} revoked`)
    return [...steps.filter((step) => step.prefix === name), { do: 'remove_prefix', prefix: name }]
  }
  return await change(directory, `revocation of prefix ${name}`, decide, clock)
}

/**
 * Records that the material of these keys may be known to others. They go on answering until they are
 * retired: the machines bound to them must be moved first.
 * @throws Fault keyserver.key_absent
 */
export async function markCompromised(
  directory: string,
  kids: readonly string[],
  note: string,
  now: number,
): Promise<KeyState> {
  const { keys } = await readDirectory(directory)
  const marked = kids.map((kid) => {
    const key = keys.find((candidate) => candidate.thumbprints.includes(kid))
    if (key === undefined) {
      throw keyserverFault('keyserver.key_absent', `there is no key ${kid}`, {
        hint: 'holdfast keyserver keys lists the keys',
      })
    }
    return [key.kid, { at: now, note }] as const
  })
  return await changeState(directory, (state) => ({
    ...state,
    compromised: { ...state.compromised, ...Object.fromEntries(marked) },
  }))
}

/** Puts recoveries on hold with a reason, or releases them with undefined. */
export async function setHold(
  directory: string,
  reason: string | undefined,
  now: number,
): Promise<KeyState> {
  return await changeState(directory, ({ hold: _, ...state }) =>
    reason === undefined ? state : { ...state, hold: { at: now, reason } },
  )
}
