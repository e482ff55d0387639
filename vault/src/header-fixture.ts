import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Secret } from '@holdfast/base'
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
}

/** Two of three people with P-256 keys. */
export function makeHolders(): Holders {
  const people = ['alice', 'bob', 'carol'].map((name) => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const jwk = publicKey.export({ format: 'jwk' })
    return { name, jwk, kid: thumbprint({ ...jwk, kty: 'EC' }), privateKey }
  })
  const config = { t: 2, pins: { person: people.map(({ name, jwk }) => ({ name, key: jwk })) } }
  return {
    policy: parsePolicy('sss', config),
    pins: (present) => {
      const keys = new Map<string, KeyObject>(
        people.slice(0, present).map(({ kid, privateKey }) => [kid, privateKey]),
      )
      return createPins({
        holders: {
          answer: async ({ kid }) => {
            const privateKey = keys.get(kid)
            return privateKey === undefined ? undefined : { privateKey }
          },
        },
      })
    },
  }
}

export interface Bench extends AsyncDisposable {
  folder: string
  state: string
  holders: Holders
  /** Dependencies with this many holders present; time stands at `now`. */
  deps(present?: number): VaultDeps
  volume(name: string, options?: { detached?: boolean }): Promise<VolumeRef>
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
      clock: { now: () => 1_800_000_000_000, sleep: async () => undefined },
    }),
    volume: async (name, options = {}) => {
      const device = join(folder, `${name}.img`)
      await emptyFile(device, 32 * 1024 * 1024)
      const header = join(folder, `${name}.header`)
      const volume = options.detached === true ? { device, header } : { device }
      if (options.detached === true) await emptyFile(header, 16 * 1024 * 1024)
      using secret = passphrase()
      await format(volume, secret, { derivation: { kind: 'full_entropy' }, keyslot: 0 })
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
