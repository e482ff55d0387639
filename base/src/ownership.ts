import { lstat, realpath } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { fileFault } from './files.ts'

/** What lstat(2) says of a folder. */
export interface Ownership {
  readonly uid: number
  /** Type and permission bits. */
  readonly mode: number
}

const writableByOthers = 0o022
const sticky = 0o1000

/**
 * True when others than root and the user `own` may rename, remove or replace what lies in a
 * folder. In a sticky one, such as /tmp, each may do so to their own only.
 */
export function othersMayReplace({ uid, mode }: Ownership, own: number): boolean {
  if (uid !== own && uid !== 0) return true
  return (mode & writableByOthers) !== 0 && (mode & sticky) === 0
}

/**
 * The first folder, from `folder` up to the root, in which others could put something else in the
 * place of what we make there; undefined when there is none. Links on the way are followed too.
 * @throws Fault base.file_absent, base.file_unreadable
 */
export async function folderOfOthers(
  folder: string,
  own = process.getuid?.() ?? 0,
): Promise<string | undefined> {
  try {
    for (const start of new Set([resolve(folder), await realpath(folder)])) {
      for (let at = start; ; at = dirname(at)) {
        const found = await lstat(at)
        if (!found.isSymbolicLink() && othersMayReplace(found, own)) return at
        if (at === dirname(at)) break
      }
    }
  } catch (cause) {
    throw fileFault(folder, cause)
  }
  return undefined
}
