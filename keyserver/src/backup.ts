import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { canonicalJson, parseJson, readBounded, Secret, writeDurable } from '@holdfast/base'
import { open, type Pins, type Policy, seal } from '@holdfast/seal'
import { z } from 'zod'
import { prefixFolder, readDirectory } from './directory.ts'
import { keyserverFault } from './faults.ts'
import { parseKey, type StoredKey } from './key.ts'
import { proveKeys } from './proof.ts'
import { parseState, readState } from './state.ts'
import { readUsage } from './usage.ts'

// A backup is the whole key directory, hidden keys and prefixes included, as one sealed secret. A key
// set is only worth restoring if every key in it works, so each is proven before it is sealed and
// again after it is restored.

const documentLimit = 3 * 1024 * 1024
const filePattern =
  /^(?:p\/([a-z0-9][a-z0-9._-]{0,62})\/)?\.?[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.jwk$/

const fileSchema = z.strictObject({
  /** Path below the directory. */
  file: z.string().regex(filePattern),
  /** When its content was written, milliseconds since 1970: decides which key is preferred. */
  created: z.number(),
  /** The file's text. */
  jwk: z.string().max(64 * 1024),
})

const documentSchema = z.strictObject({
  version: z.literal(1),
  made: z.number(),
  files: z.array(fileSchema).min(1).max(10_000),
  state: z.unknown(),
  usage: z.record(z.string(), z.strictObject({ last: z.number(), count: z.number() })),
})

/** What a backup holds, once opened. Handle as a secret: `files` are private keys. */
export interface BackupContents {
  readonly made: number
  readonly keys: readonly (StoredKey & { readonly text: string })[]
  readonly state: ReturnType<typeof parseState>
  readonly usage: z.infer<typeof documentSchema>['usage']
}

export interface BackupRequest {
  readonly directory: string
  readonly policy: Policy
  readonly pins: Pins
  /** Path of the file to write, replaced whole, mode 0600. */
  readonly output: string
  readonly signal?: AbortSignal
}

export interface BackupReport {
  readonly output: string
  /** Thumbprints of the keys in it, each proven to work. */
  readonly keys: readonly string[]
  readonly prefixes: readonly string[]
  /** SHA-256 of the file, hex. */
  readonly digest: string
}

/**
 * Seals the whole key directory under a policy.
 * @throws Fault keyserver.directory_empty, keyserver.backup_unverified, and those of seal
 */
export async function backup(request: BackupRequest, now: number): Promise<BackupReport> {
  const { directory, policy, pins, output, signal } = request
  const keySet = await readDirectory(directory)
  if (keySet.keys.length === 0) {
    throw keyserverFault('keyserver.directory_empty', `${directory} holds no key to back up`)
  }
  const proven = await proveKeys(keySet.keys)
  const files = []
  for (const { file, created } of keySet.keys) {
    const bytes = await readBounded(join(directory, file), 64 * 1024)
    files.push({ file, created, jwk: bytes.toString('utf8') })
    bytes.fill(0)
  }
  const [state, usage] = [await readState(directory), await readUsage(directory)]
  const text = canonicalJson({ version: 1, made: now, files, state, usage })
  using plaintext = Secret.copy(text)
  if (plaintext.length > documentLimit) {
    throw keyserverFault('keyserver.backup_malformed', 'the key directory is larger than 3 MiB')
  }
  const sealed = await seal(pins, policy, plaintext, signal === undefined ? {} : { signal })
  await writeDurable(output, sealed, { mode: 0o600 })
  const digest = createHash('sha256').update(sealed).digest('hex')
  return { output, keys: proven, prefixes: keySet.prefixes, digest }
}

/**
 * Opens a backup and proves every key in it; writes nothing.
 * @throws Fault keyserver.backup_malformed, keyserver.backup_unverified, and those of open
 */
export async function openBackup(
  pins: Pins,
  sealed: string,
  signal?: AbortSignal,
): Promise<BackupContents> {
  using plaintext = await open(pins, sealed, signal === undefined ? {} : { signal })
  const contents = readContents(plaintext.reveal().toString('utf8'))
  await proveKeys(contents.keys)
  return contents
}

function readContents(text: string): BackupContents {
  try {
    const { made, files, state, usage } = documentSchema.parse(
      parseJson(text, 'the backup', 2 * documentLimit),
    )
    const keys = files.map(({ file, created, jwk }) => {
      const prefix = filePattern.exec(file)?.[1] ?? ''
      const name = prefix === '' ? file : file.slice(`${prefixFolder}/${prefix}/`.length)
      const hidden = name.startsWith('.')
      return { ...parseKey(jwk, file), file, prefix, hidden, created, changed: created, text: jwk }
    })
    return { made, keys, state: parseState(state), usage }
  } catch {
    // The parsers' own messages may quote what they read, and that is private keys.
    throw keyserverFault('keyserver.backup_malformed', 'this is not a backup of a key directory', {
      hint: 'holdfast inspect shows what a sealed secret is',
    })
  }
}
