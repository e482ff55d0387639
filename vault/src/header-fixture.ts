import { createPrivateKey, generateKeyPairSync, type JsonWebKey } from 'node:crypto'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, Secret } from '@holdfast/base'
import { thumbprint } from '@holdfast/crypto'
import { createPins, type Pins, type Policy, parsePolicy, seal } from '@holdfast/seal'
import { addKey, format, importToken, type VolumeRef } from './cryptsetup.ts'
import { digestOf } from './header-pack.ts'
import type { VaultDeps } from './state.ts'
import { bindingToken } from './token.ts'

// For tests: real volumes in image files, holders with real keys.

export interface Holders {
  policy: Policy
  /** Pins for which the first `present` holders answer. */
  pins(present: number): Pins
  /** The holders' private keys, for another process. */
  keys: readonly JsonWebKey[]
}

/** Two of three people with P-256 keys. */
export function makeHolders(): Holders {
  const people = ['alice', 'bob', 'carol'].map((name) => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const [key, secret] = [publicKey, privateKey].map((half) => half.export({ format: 'jwk' }))
    return { name, key, secret: secret ?? {} }
  })
  const person = people.map(({ name, key }) => ({ name, key }))
  const keys = people.map(({ secret }) => secret)
  return {
    policy: parsePolicy('sss', { t: 2, pins: { person } }),
    keys,
    pins: (present) => pinsWith(keys.slice(0, present)),
  }
}

/** Pins for which the holders of these private keys answer. */
export function pinsWith(keys: readonly JsonWebKey[]): Pins {
  const byThumbprint = new Map(
    keys.map((key) => [
      thumbprint({ kty: 'EC', crv: key.crv, x: key.x, y: key.y }),
      createPrivateKey({ key, format: 'jwk' }),
    ]),
  )
  return createPins({
    holders: {
      answer: async ({ kid }) => {
        const privateKey = byThumbprint.get(kid)
        return privateKey === undefined ? undefined : { privateKey }
      },
    },
  })
}

/** Time stands still in these tests. */
export const frozen: Clock = { now: () => 1_800_000_000_000, sleep: async () => undefined }

export interface Bench extends AsyncDisposable {
  folder: string
  state: string
  holders: Holders
  /** Dependencies with this many holders present; time stands at `now`. */
  deps(present?: number): VaultDeps
  /** A volume of 32 MiB with cryptsetup's usual sizes, or a small one of 8 MiB that is half header. */
  volume(name: string, options?: { detached?: boolean; small?: boolean }): Promise<VolumeRef>
}

export const passphrase = (): Secret => Secret.copy('the owner’s passphrase')

/** A folder with a state directory, holders, and a way to make small volumes. */
export async function makeBench(): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-header-'))
  const holders = makeHolders()
  const state = join(folder, 'state')
  return {
    folder,
    state,
    holders,
    deps: (present = 3) => ({
      pins: holders.pins(present),
      stateDirectory: state,
      clock: frozen,
    }),
    volume: async (name, options = {}) => {
      const device = join(folder, `${name}.img`)
      await emptyFile(device, (options.small === true ? 8 : 32) * 1024 * 1024)
      const header = join(folder, `${name}.header`)
      const volume = options.detached === true ? { device, header } : { device }
      if (options.detached === true) await emptyFile(header, 16 * 1024 * 1024)
      using secret = passphrase()
      await format(volume, secret, {
        derivation: { kind: 'full_entropy' },
        keyslot: 0,
        ...(options.small === true ? { keyslotsSize: 4 * 1024 * 1024 - 2 * 65_536 } : {}),
      })
      return volume
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

/** Adds a way in whose token holds its passphrase sealed under `policy`. */
export async function bind(
  volume: VolumeRef,
  pins: Pins,
  policy: Policy,
  keyslot: number,
  purpose: 'automatic' | 'recovery',
): Promise<void> {
  using existing = passphrase()
  using added = Secret.copy(Secret.random(32).reveal().toString('base64url'))
  await addKey(volume, keyslot, existing, added, { kind: 'full_entropy' })
  const jwe = await seal(pins, policy, added)
  await importToken(volume, keyslot, bindingToken(keyslot, jwe, { v: 1, purpose, generation: 1 }))
}

export async function emptyFile(path: string, size: number): Promise<void> {
  await writeFile(path, '')
  await truncate(path, size)
}

/** SHA-256 of a whole file. */
export async function fileDigest(path: string): Promise<string> {
  return digestOf(await readFile(path))
}
