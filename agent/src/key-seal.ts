import { join } from 'node:path'
import { isFault, readIfPresent, Secret, writeDurable } from '@holdfast/base'
import { decryptJwe, encryptJwe, parseJwe } from '@holdfast/crypto'
import { createPins, open, parsePolicy, seal } from '@holdfast/seal'
import { agentFault } from './faults.ts'

// How the private keys in a node's directory are kept. With a TPM each file is encrypted for a key
// that only this machine's TPM unseals, so a disk that is copied and started elsewhere has no identity.
// It is not bound to what has booted: an update must not cost a node its identity. Without a TPM the
// files are plain, readable for root alone, and every status says so.

export interface KeySeal {
  readonly kind: 'tpm' | 'file'
  /** A secret file's content as it is written. `name` is bound to it. */
  wrap(name: string, content: Secret): Promise<Secret>
  /** The content of a secret file that was written by `wrap`, or plainly before there was a TPM. */
  unwrap(name: string, bytes: Buffer): Promise<Secret>
}

/** The key of a directory, sealed by the TPM. */
export const sealedKeyName = 'directory-key.jwe'

/**
 * The way in which this directory's keys are kept.
 * @param tcti the TPM, as TPM2TOOLS_TCTI; undefined when there is none
 * @throws Fault agent.keys_sealed_elsewhere when the TPM is not the one that they were sealed with
 */
export async function openKeySeal(directory: string, tcti: string | undefined): Promise<KeySeal> {
  const path = join(directory, sealedKeyName)
  const found = await readIfPresent(path, 65_536)
  if (tcti === undefined) return found === undefined ? plainSeal : lockedSeal(directory)
  const pins = createPins({ tcti })
  if (found !== undefined) {
    try {
      return tpmSeal(await open(pins, found.toString('utf8').trim(), { timeout: 60_000 }))
    } catch (error) {
      if (isFault(error)) throw elsewhere(directory, error)
      throw error
    }
  }
  using key = Secret.random(32)
  await writeDurable(path, `${await seal(pins, parsePolicy('tpm2', {}), key)}\n`)
  return tpmSeal(key.clone())
}

/** Keeps files plainly. */
export const plainSeal: KeySeal = {
  kind: 'file',
  wrap: async (_name, content) => content.clone(),
  unwrap: async (name, bytes) => {
    if (!isSealed(bytes)) return Secret.take(bytes)
    throw elsewhere(name)
  },
}

/** There was a TPM, and this process was given none: nothing can be read, and nothing made. */
function lockedSeal(directory: string): KeySeal {
  const refuse = async () => {
    throw elsewhere(directory)
  }
  return { kind: 'tpm', wrap: refuse, unwrap: refuse }
}

function tpmSeal(key: Secret): KeySeal {
  return {
    kind: 'tpm',
    wrap: async (name, content) =>
      Secret.copy(`${await encryptJwe({ alg: 'dir', holdfast: { file: name } }, key, content)}\n`),
    unwrap: async (name, bytes) => {
      if (!isSealed(bytes)) return Secret.take(bytes)
      const jwe = parseJwe(bytes.toString('utf8').trim())
      if (fileOf(jwe.header.holdfast) !== name)
        throw agentFault('agent.identity_damaged', `${name} holds another file's content`)
      return decryptJwe(jwe, key)
    },
  }
}

/** True for what `wrap` writes under a TPM; plain files are JSON objects. */
export function isSealed(bytes: Buffer): boolean {
  return bytes.length > 0 && bytes[0] !== 0x7b
}

function fileOf(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null || !('file' in value)) return undefined
  return typeof value.file === 'string' ? value.file : undefined
}

function elsewhere(what: string, cause?: unknown): Error {
  return agentFault(
    'agent.keys_sealed_elsewhere',
    `the keys in ${what} are sealed by a TPM that is not here`,
    {
      cause,
      hint: 'this disk was copied or moved, or the TPM was cleared: start it in its own machine, or remove the node and enrol this machine anew',
    },
  )
}
