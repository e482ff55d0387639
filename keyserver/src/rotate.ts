import type { Clock } from '@holdfast/base'
import type { CurveName } from '@holdfast/crypto'
import { type ChangeResult, change, type Step } from './change.ts'
import { type KeySet, readDirectory } from './directory.ts'
import { keyserverFault } from './faults.ts'
import type { KeyUse, StoredKey } from './key.ts'

export interface RotationOptions {
  /** Which keys to replace; both by default. A prefix has only an exchange key. */
  readonly uses?: readonly KeyUse[]
  /** The curve of the new keys; by default that of the key each replaces, or P-521. */
  readonly curve?: CurveName
  /** Rotate the exchange key of this prefix instead of the main set. */
  readonly prefix?: string
}

/**
 * The steps of a rotation: every new key is durable before the first old one is hidden.
 * `keys` is the whole directory.
 */
export function planRotation(
  keys: readonly StoredKey[],
  { uses = ['signing', 'exchange'], curve, prefix = '' }: RotationOptions = {},
): Step[] {
  const wanted = prefix === '' ? uses : uses.filter((use) => use === 'exchange')
  const old = keys.filter((key) => key.prefix === prefix && !key.hidden && wanted.includes(key.use))
  const creates = wanted.map((use): Step => {
    const replaced = old.find((key) => key.use === use)
    return { do: 'create', prefix, use, crv: curve ?? replaced?.crv ?? 'P-521' }
  })
  const hides = old.map((key): Step => ({ do: 'hide', prefix, file: key.file, kid: key.kid }))
  return [...creates, ...hides]
}

/**
 * Rotates: new keys are advertised, the old ones go on answering. A crash at any line leaves the old
 * or the new keys advertised; the next start or command finishes it.
 * @throws Fault keyserver.prefix_absent
 */
export async function rotate(
  directory: string,
  options: RotationOptions = {},
  clock?: Clock,
): Promise<ChangeResult> {
  const decide = async (): Promise<Step[]> => {
    const keySet = await readDirectory(directory)
    requirePrefix(keySet, options.prefix ?? '')
    return planRotation(keySet.keys, options)
  }
  return await change(directory, 'rotation', decide, clock)
}

/** @throws Fault keyserver.prefix_absent when the directory has no such prefix */
export function requirePrefix(keySet: KeySet, prefix: string): void {
  if (prefix === '' || keySet.prefixes.includes(prefix)) return
  throw keyserverFault('keyserver.prefix_absent', `there is no prefix ${prefix}`, {
    hint: 'holdfast keyserver keys lists the prefixes',
  })
}

export interface InitialiseOptions {
  /** The curve of both keys. Default P-521, as tangd makes them. */
  readonly curve?: CurveName
}

/**
 * Makes the first signing and exchange key. A directory that already advertises keys is left alone;
 * one that holds only hidden keys is refused, because its clients would be better served by a restore.
 * @throws Fault keyserver.directory_not_empty
 */
export async function initialise(
  directory: string,
  { curve = 'P-521' }: InitialiseOptions = {},
  clock?: Clock,
): Promise<ChangeResult> {
  const decide = async (): Promise<Step[]> => {
    const { keys } = await readDirectory(directory)
    const missing = (['signing', 'exchange'] as const).filter(
      (use) => !keys.some((key) => key.use === use && key.prefix === '' && !key.hidden),
    )
    if (missing.length > 0 && keys.length > 0) {
      throw keyserverFault(
        'keyserver.directory_not_empty',
        `${directory} holds keys but no ${missing.join(' and no ')} key to advertise`,
        { hint: 'holdfast keyserver rotate makes new keys and keeps the hidden ones' },
      )
    }
    return missing.map((use) => ({ do: 'create', prefix: '', use, crv: curve }))
  }
  return await change(directory, 'initialisation', decide, clock)
}
