import { type Stats, statSync } from 'node:fs'
import { lstat, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, isFault, readBounded } from '@holdfast/base'
import { keyserverFault } from './faults.ts'
import { parseKey, type StoredKey } from './key.ts'

// The key directory. Rules: the format is tangd's, so that either program can serve it; what
// Holdfast adds lies in two subdirectories that tangd does not look at:
//   p/NAME/*.jwk   exchange keys that answer below /p/NAME/ only
//   .holdfast/     last use, marks, journals
// A read is a consistent view: when the directory changed while it was read, it is read again.

export const prefixFolder = 'p'
export const stateFolder = '.holdfast'

const keyFileLimit = 64 * 1024
const prefixPattern = /^[a-z0-9][a-z0-9._-]{0,62}$/

/** A file that is not served, and why. */
export interface Problem {
  readonly file: string
  readonly reason: string
  /** True when its mode lets others write or read it. */
  readonly loose: boolean
}

/** Everything in a key directory at one moment. */
export interface KeySet {
  readonly path: string
  readonly keys: readonly StoredKey[]
  /** Every prefix, with or without a usable key. */
  readonly prefixes: readonly string[]
  readonly problems: readonly Problem[]
  /** Changes whenever a file or directory does. */
  readonly stamp: string
}

/** True for a name that a prefix may have: also what a URL and a folder may be called. */
export function isPrefixName(name: string): boolean {
  return prefixPattern.test(name)
}

/** The folder of a prefix, or the directory itself for the main set. */
export function folderOf(directory: string, prefix: string): string {
  return prefix === '' ? directory : join(directory, prefixFolder, prefix)
}

/**
 * Reads the whole key directory. Unusable files are reported as problems, never thrown.
 * @throws Fault keyserver.directory_unreadable, keyserver.directory_unstable
 */
export async function readDirectory(path: string): Promise<KeySet> {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const before = await scan(path)
    const read = await readFiles(path, before)
    if (read !== undefined && (await scan(path)).stamp === before.stamp) {
      return { path, prefixes: before.prefixes, stamp: before.stamp, ...read }
    }
  }
  throw keyserverFault('keyserver.directory_unstable', `${path} kept changing while it was read`, {
    hint: 'wait for the tool that is changing it to finish',
  })
}

/** A cheap fingerprint of names, sizes and times of every file: two equal ones mean no change. */
export async function stampOf(path: string): Promise<string> {
  return (await scan(path)).stamp
}

interface Entry {
  file: string
  prefix: string
  hidden: boolean
  stats: Stats
}

interface Scan {
  entries: Entry[]
  prefixes: string[]
  stamp: string
}

async function scan(path: string): Promise<Scan> {
  const prefixes = await prefixNames(path)
  const entries = await scanFolder(path, '')
  for (const prefix of prefixes) entries.push(...(await scanFolder(path, prefix)))
  const state = await stat(join(path, stateFolder, 'state.json')).catch(() => undefined)
  const stamp = entries
    .map(({ file, stats }) => `${file} ${stats.ino} ${stats.size} ${stats.mtimeMs} ${stats.mode}`)
    .concat(prefixes, `${state?.ino} ${state?.mtimeMs}`)
    .join('\n')
  return { entries, prefixes, stamp }
}

async function prefixNames(path: string): Promise<string[]> {
  try {
    const names = await readdir(join(path, prefixFolder), { withFileTypes: true })
    return names
      .filter((entry) => entry.isDirectory() && isPrefixName(entry.name))
      .map((entry) => entry.name)
      .sort()
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return []
    throw unreadable(join(path, prefixFolder), cause)
  }
}

async function scanFolder(path: string, prefix: string): Promise<Entry[]> {
  const folder = folderOf(path, prefix)
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (cause) {
    if (prefix !== '' && codeOf(cause) === 'ENOENT') return []
    throw unreadable(folder, cause)
  }
  const wanted = names.filter((name) => name.endsWith('.jwk') && !name.startsWith('.tmp-')).sort()
  const entries: Entry[] = []
  for (const name of wanted) {
    const stats = await stat(join(folder, name)).catch(() => undefined)
    if (stats === undefined) continue // renamed or removed since: the second scan will differ
    const file = prefix === '' ? name : join(prefixFolder, prefix, name)
    entries.push({ file, prefix, hidden: name.startsWith('.'), stats })
  }
  return entries
}

async function readFiles(
  path: string,
  { entries }: Scan,
): Promise<Pick<KeySet, 'keys' | 'problems'> | undefined> {
  const keys: StoredKey[] = []
  const problems: Problem[] = []
  const folderIsOpen = await isWorldReachable(path)
  for (const { file, prefix, hidden, stats } of entries) {
    const reason = modeProblem(stats, folderIsOpen)
    if (reason !== undefined) problems.push({ file, reason, loose: true })
    if (!stats.isFile()) {
      problems.push({ file, reason: 'it is not a regular file', loose: false })
      continue
    }
    try {
      const bytes = await readBounded(join(path, file), keyFileLimit)
      const material = parseKey(bytes.toString('utf8'), file)
      bytes.fill(0)
      keys.push({
        file,
        prefix,
        hidden,
        created: stats.mtimeMs,
        changed: stats.ctimeMs,
        ...material,
      })
    } catch (error) {
      if (isFault(error, 'base.file_absent')) return undefined
      if (!isFault(error)) throw error
      problems.push({ file, reason: error.message, loose: false })
    }
  }
  return { keys: ordered(keys), problems }
}

/** Newest first, so that the preferred exchange key leads the advertisement; ties by thumbprint. */
function ordered(keys: readonly StoredKey[]): StoredKey[] {
  const unique = new Map<string, StoredKey>()
  for (const key of keys) {
    const identity = `${key.prefix}/${key.kid}`
    const other = unique.get(identity)
    // The same key advertised and hidden, or under two names: the advertised private one counts.
    if (other === undefined || rank(key) > rank(other)) unique.set(identity, key)
  }
  return [...unique.values()].sort((a, b) => b.created - a.created || (a.kid < b.kid ? -1 : 1))
}

function rank(key: StoredKey): number {
  return (key.privateKey === undefined ? 0 : 2) + (key.hidden ? 0 : 1)
}

async function isWorldReachable(path: string): Promise<boolean> {
  return ((await stat(path)).mode & 0o001) !== 0
}

function modeProblem(stats: Stats, folderIsOpen: boolean): string | undefined {
  if ((stats.mode & 0o022) !== 0) return 'others may write it'
  // 0444 in a directory nobody else may enter leaks nothing; in an open one it is everybody's key.
  if ((stats.mode & 0o004) !== 0 && folderIsOpen) return 'everybody may read it'
  return undefined
}

/**
 * Refuses a directory in which others could plant, replace or read keys.
 * @throws Fault keyserver.permissions_loose, keyserver.directory_unreadable
 */
export async function requireTightPermissions(keySet: KeySet): Promise<void> {
  const folders = ['', ...keySet.prefixes].map((prefix) => folderOf(keySet.path, prefix))
  if (keySet.prefixes.length > 0) folders.push(join(keySet.path, prefixFolder))
  for (const folder of folders) {
    const { mode } = await lstat(folder).catch((cause: unknown) => {
      throw unreadable(folder, cause)
    })
    if ((mode & 0o022) !== 0) throw loose(folder, 'others may write it', 'chmod go-w')
  }
  const file = keySet.problems.find((problem) => problem.loose)
  if (file !== undefined) throw loose(join(keySet.path, file.file), file.reason, 'chmod o=,g-w')
}

function loose(path: string, reason: string, command: string): Error {
  return keyserverFault('keyserver.permissions_loose', `refusing to serve ${path}: ${reason}`, {
    hint: `${command} '${path}'; if others could have read or replaced a key, rotate it`,
  })
}

/** True when the path exists and is a directory. */
export function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}

function unreadable(path: string, cause: unknown): Error {
  return keyserverFault(
    'keyserver.directory_unreadable',
    `cannot read the key directory ${path}: ${codeOf(cause) ?? 'unknown error'}`,
    { cause, hint: 'is its volume mounted, and may this user read it?' },
  )
}
