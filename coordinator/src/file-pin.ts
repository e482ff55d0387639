import { basename, join } from 'node:path'
import {
  canonicalJson,
  parseJsonObject,
  readBounded,
  readIfPresent,
  Secret,
  writeDurable,
} from '@holdfast/base'
import { decryptJwe, encryptJwe } from '@holdfast/crypto'
import { type Pin, sealFault } from '@holdfast/seal'

/**
 * clevis 22's `file` pin: the content key lies in a file of its own (mode 0400). It is a host's own
 * way to start unattended, and worth exactly as much as that file's protection.
 * @param own a directory where a file of the same name is looked for, too: instances of one cluster
 *   share a key and need not have it at the same path
 */
export function filePin(own?: string): Pin {
  return {
    name: 'file',
    local: true,
    interactive: false,
    label: (config) => `file ${String(config.name ?? '')}`,
    seal: async (plaintext, config) => {
      const { name } = config
      if (typeof name !== 'string' || !name.startsWith('/')) {
        throw sealFault(
          'seal.policy_invalid',
          'file needs "name", the absolute path of its key file',
        )
      }
      using key = await readKey(await placeOf(name, own))
      return await encryptJwe(
        { alg: 'dir', clevis: { file: { name }, pin: 'file' } },
        key,
        plaintext,
      )
    },
    open: async (jwe) => {
      using key = await readKey(await placeOf(pathOf(jwe.header), own))
      return decryptJwe(jwe, key)
    },
    inspect: (jwe) => ({ label: `file ${pathOf(jwe.header)}` }),
    policyOf: (jwe) => ({ kind: 'pin', pin: 'file', config: { name: pathOf(jwe.header) } }),
  }
}

function pathOf(header: Record<string, unknown>): string {
  const { file } = (header.clevis ?? {}) as { file?: { name?: unknown } } // every member is checked below
  if (typeof file?.name === 'string') return file.name
  throw sealFault('seal.sealed_malformed', 'the sealed secret names no key file')
}

async function placeOf(path: string, own: string | undefined): Promise<string> {
  if (own === undefined || (await readIfPresent(path, 4096)) !== undefined) return path
  return join(own, basename(path))
}

async function readKey(path: string): Promise<Secret> {
  const { k } = parseJsonObject((await readBounded(path, 4096)).toString('utf8'), path)
  const key = typeof k === 'string' ? Buffer.from(k, 'base64url') : Buffer.alloc(0)
  if (key.length !== 32) throw sealFault('seal.sealed_malformed', `${path} holds no content key`)
  return Secret.take(key)
}

/** Makes the key file unless it is there: only claiming or adding a way may do so. */
export async function ensureKeyFile(path: string): Promise<void> {
  if ((await readIfPresent(path, 4096)) !== undefined) return
  using key = Secret.random(32)
  const k = key.reveal().toString('base64url')
  const jwk = { alg: 'A256GCM', k, key_ops: ['encrypt', 'decrypt'], kty: 'oct' }
  await writeDurable(path, canonicalJson(jwk), { mode: 0o400 })
}
