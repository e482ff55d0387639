import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseJsonObject, run } from '@holdfast/base'
import { listenAsTangd } from '@holdfast/base/tangd-fixture'
import {
  type CurveName,
  curveOf,
  type EcPrivateJwk,
  generateEcKey,
  jwkOf,
  mayDo,
  signingAlgorithm,
  thumbprint,
  toBytes,
} from '@holdfast/crypto'
import { p256, p384, p521 } from '@noble/curves/nist.js'

// A real tangd as distributions run it: one process per connection, on its standard streams.

export interface Tangd extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly directory: string
  /** The `tang` configuration that pins its present signing key. */
  config(): Promise<{ url: string; thp: string }>
  /** Thumbprint of a present signing key: with several, of the first by file name. */
  thp(hash?: 'S1' | 'S256' | 'S512'): Promise<string>
  /** Thumbprint of a present exchange key: with several, of the first by file name. */
  kid(): Promise<string>
  /** The elliptic-curve keys that it shows, by file name; one of another type is nobody's pin. */
  keys(): Promise<EcPrivateJwk[]>
  addKey(key: EcPrivateJwk, use: 'exchange' | 'signing'): Promise<void>
  /** What `tangd-rotate-keys` does: hides all keys and makes a new pair. */
  rotate(): Promise<void>
  stop(): Promise<void>
  /** Listens on the same port again. */
  start(): Promise<void>
}

export interface TangdOptions {
  /** Exchange key's curve. Default P-521, by `tangd-keygen`. */
  exchange?: CurveName
  /** Signing key's curve. Default P-521. */
  signing?: CurveName
}

export async function startTangd(options: TangdOptions = {}): Promise<Tangd> {
  const { exchange = 'P-521', signing = 'P-521' } = options
  const home = await mkdtemp('/tmp/holdfast-tangd-')
  const directory = join(home, 'db')
  await mkdir(directory, { mode: 0o700 })
  if (exchange === 'P-521' && signing === 'P-521') {
    await run('/usr/libexec/tangd-keygen', [directory])
  } else {
    await writeKey(directory, generateEcKey(signing), 'signing')
    await writeKey(directory, generateEcKey(exchange), 'exchange')
  }
  let listening = await listenAsTangd(directory)
  const { port } = listening
  const url = `http://127.0.0.1:${port}`
  const keys = () => readKeys(directory)
  const keyFor = async (operation: string) => {
    const key = (await keys()).find((candidate) => mayDo({ ...candidate }, operation))
    if (key === undefined) throw new Error(`tangd has no key to ${operation}`)
    return key
  }
  const thp: Tangd['thp'] = async (hash = 'S256') => thumbprint(await keyFor('sign'), hash)
  return {
    url,
    port,
    directory,
    keys,
    thp,
    config: async () => ({ url, thp: await thp() }),
    kid: async () => thumbprint(await keyFor('deriveKey')),
    addKey: (key, use) => writeKey(directory, key, use),
    rotate: async () => {
      await run('/usr/libexec/tangd-rotate-keys', ['-d', directory])
    },
    stop: async () => await listening.running[Symbol.asyncDispose](),
    start: async () => {
      listening = await listenAsTangd(directory, port)
    },
    [Symbol.asyncDispose]: async () => {
      await listening.running[Symbol.asyncDispose]()
      await rm(home, { recursive: true, force: true })
    },
  }
}

async function readKeys(directory: string): Promise<EcPrivateJwk[]> {
  const names = (await readdir(directory)).filter((name) => /^[^.].*\.jwk$/.test(name)).sort()
  const keys = await Promise.all(
    names.map(async (name) => parseJsonObject(await readFile(join(directory, name), 'utf8'), name)),
  )
  return keys.filter(({ kty }) => kty === 'EC') as unknown as EcPrivateJwk[] // tangd's own key files
}

async function writeKey(
  directory: string,
  key: EcPrivateJwk,
  use: 'exchange' | 'signing',
): Promise<void> {
  const members =
    use === 'exchange'
      ? { alg: 'ECMR', key_ops: ['deriveKey'] }
      : { alg: signingAlgorithm(key), key_ops: ['sign', 'verify'] }
  const path = join(directory, `${thumbprint(key)}.jwk`)
  await writeFile(path, JSON.stringify({ ...key, ...members }), { mode: 0o440 })
}

const oracles = { 'P-256': p256, 'P-384': p384, 'P-521': p521 }

/** The private key with a chosen scalar. */
export function keyWithScalar(crv: CurveName, scalar: bigint): EcPrivateJwk {
  const point = oracles[crv].Point.BASE.multiply(scalar).toAffine()
  const d = toBytes(scalar, curveOf(crv).size).toString('base64url')
  return { ...jwkOf(point, crv), d }
}
