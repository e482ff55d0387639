import { createPrivateKey, generateKeyPair, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ensureDirectory, writeDurable } from '@holdfast/base'
import { thumbprint } from '@holdfast/crypto'
import { type Holders, type Policy, threshold } from '@holdfast/seal'
import type { FleetHolder } from './fleet.ts'

/** A holder of this machine's making, with the private key still at hand. */
export interface LocalHolder extends FleetHolder {
  readonly privateKey: KeyObject
}

const names = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank', 'grace', 'heidi', 'ivan', 'judy']
const generate = promisify(generateKeyPair)

/**
 * Makes RSA-3072 keys for `count` holders and writes them below `directory`: NAME.key (PKCS#8 PEM,
 * mode 0600) and NAME.pub. A private key on a disk is for trying things out; see fleet.ts.
 */
export async function makeHolders(directory: string, count: number): Promise<LocalHolder[]> {
  await ensureDirectory(directory)
  return await Promise.all(
    Array.from({ length: count }, (_, index) => makeHolder(directory, nameOf(index))),
  )
}

function nameOf(index: number): string {
  return names[index] ?? `holder-${index + 1}`
}

async function makeHolder(directory: string, name: string): Promise<LocalHolder> {
  const { publicKey, privateKey } = await generate('rsa', { modulusLength: 3072 })
  const publicKeyPath = join(directory, `${name}.pub`)
  const privateKeyPath = join(directory, `${name}.key`)
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  await writeDurable(publicKeyPath, publicKey.export({ type: 'spki', format: 'pem' }), {
    mode: 0o644,
  })
  await writeDurable(privateKeyPath, pem, { mode: 0o600 })
  return { name, publicKey, privateKey: createPrivateKey(pem), publicKeyPath, privateKeyPath }
}

/** Any `needed` of these holders. */
export function holdersPolicy(holders: readonly FleetHolder[], needed: number): Policy {
  return threshold(
    needed,
    holders.map(({ name, publicKey }): Policy => {
      const key = publicKey.export({ format: 'jwk' })
      return { kind: 'pin', pin: 'person', config: { name, key } }
    }),
  )
}

/** The holders who are here: they answer for their own shares, all others are absent. */
export function holdersPresent(holders: readonly LocalHolder[]): Holders {
  const keys = new Map(
    holders.map(({ publicKey, privateKey }) => {
      const { kty = '', ...members } = publicKey.export({ format: 'jwk' })
      return [thumbprint({ kty, ...members }), privateKey]
    }),
  )
  return {
    answer: async ({ kid }) => {
      const privateKey = keys.get(kid)
      return privateKey === undefined ? undefined : { privateKey }
    },
  }
}
