import { createHash } from 'node:crypto'
import { statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { ensureDirectory, isObject, readIfPresent, Secret, writeDurable } from '@holdfast/base'
import { decryptJwe, encryptJwe, type Jwe } from '@holdfast/crypto'
import type { Pin } from '@holdfast/seal'
import { agentFault } from './faults.ts'

// The first node's way in while nobody can guard it: sealed to a key in this machine's memory, so that
// the vault can be closed and reopened now, and after a power cut only the holders open it. Once they
// have, or peers have joined, the keyslot is replaced.

const fileName = 'temporary-key'
/** statfs(2): TMPFS_MAGIC. */
const tmpfs = 0x01021994

/** `directory` must be on a tmpfs, such as /run/holdfast. */
export function temporaryPin(directory: string): Pin {
  const path = join(directory, fileName)
  return {
    name: 'temporary',
    local: true,
    interactive: false,
    label: () => 'temporary',
    seal: async (plaintext, _config, { membership }) => {
      await requireMemory(directory)
      using key = await keyAt(path)
      return await encryptJwe(
        {
          alg: 'dir',
          clevis: { pin: 'temporary', temporary: { key: nameOf(key) } },
          ...(membership === undefined ? {} : { holdfast: { share: membership } }),
        },
        key,
        plaintext,
      )
    },
    open: async (jwe) => {
      const bytes = await readIfPresent(path, 32)
      using key = bytes === undefined ? undefined : Secret.take(bytes)
      if (key !== undefined && nameOf(key) === sealedTo(jwe)) return decryptJwe(jwe, key)
      throw agentFault('agent.temporary_key_absent', 'the temporary key went with the power', {
        hint: 'let the holders open the vault: holdfast node unlock NAME --genesis --key FILE --key FILE',
      })
    },
    inspect: (jwe) => ({ label: 'temporary', kid: sealedTo(jwe) }),
    policyOf: () => ({ kind: 'pin', pin: 'temporary', config: {} }),
  }
}

async function requireMemory(directory: string): Promise<void> {
  await ensureDirectory(directory)
  if ((await statfs(directory)).type === tmpfs) return
  throw agentFault('agent.runtime_on_disk', `${directory} is not in memory`, {
    hint: 'give a directory on a tmpfs, such as /run/holdfast',
  })
}

async function keyAt(path: string): Promise<Secret> {
  const found = await readIfPresent(path, 32)
  if (found !== undefined && found.length === 32) return Secret.take(found)
  const key = Secret.random(32)
  await writeDurable(path, key.reveal())
  return key
}

function nameOf(key: Secret): string {
  return createHash('sha256')
    .update('holdfast temporary 1\n')
    .update(key.reveal())
    .digest('base64url')
}

function sealedTo({ header }: Jwe): string {
  const { clevis } = header
  const own = isObject(clevis) ? clevis.temporary : undefined
  return isObject(own) && typeof own.key === 'string' ? own.key : ''
}
