import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseJson, type RunningProgram, type RunOptions, run, Secret } from '@holdfast/base'
import { listenAsTangd } from '@holdfast/base/tangd-fixture'
import { type AnyJwk, thumbprint, verifyAdvertisement } from '@holdfast/crypto'
import { createPins, type Pins, type Policy, parsePolicy } from '@holdfast/seal'
import { format, type VolumeRef } from './cryptsetup.ts'
import type { VaultDeps } from './state.ts'

// The test bench of this part: real volumes in image files and real tangd behind socat, one process per
// connection, as distributions run it.

/** A directory of its own for one test; disposing removes it. */
export interface Bench extends AsyncDisposable {
  path: string
  deps: VaultDeps
  pins: Pins
  /** An empty image file. */
  image(name?: string, bytes?: number): Promise<VolumeRef>
  /** A formatted volume with `passphrase` in keyslot 0. */
  volume(options?: VolumeOptions): Promise<VolumeRef>
  tang(options?: { curve?: 'P-256' | 'P-384' | 'P-521' }): Promise<Tang>
}

export interface VolumeOptions {
  name?: string
  metadataSize?: number
  keyslotsSize?: number
}

/** A real tangd. */
export interface Tang {
  url: string
  directory: string
  /** SHA-256 thumbprint of its signing key at start. */
  thp: string
  config: { url: string; thp: string }
  stop(): Promise<void>
  /** Starts again on the same port. */
  start(): Promise<void>
  /** Hides the keys and makes new ones. */
  rotate(): Promise<void>
  /** Deletes the hidden keys. */
  forget(): Promise<void>
  /** Reads `thp` again, after a rotation. */
  refresh(): Promise<void>
}

export const passphrase = 'correct horse battery staple'

export async function makeBench(pins: Pins = createPins()): Promise<Bench> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-vault-'))
  const servers: RunningTang[] = []
  const image: Bench['image'] = async (name = 'volume.img', bytes = 32 * 1024 * 1024) => {
    const device = join(path, name)
    await writeFile(device, '')
    await truncate(device, bytes)
    return { device }
  }
  return {
    path,
    pins,
    deps: { pins, stateDirectory: join(path, 'state'), actor: 'test' },
    image,
    volume: async (options = {}) => {
      const volume = await image(options.name)
      using secret = Secret.copy(passphrase)
      const { metadataSize = 64 * 1024, keyslotsSize } = options
      const sizes = { metadataSize, ...(keyslotsSize === undefined ? {} : { keyslotsSize }) }
      await format(volume, secret, { derivation: { kind: 'pbkdf2', iterations: 1000 }, ...sizes })
      return volume
    },
    tang: async ({ curve = 'P-521' } = {}) => {
      const server = await RunningTang.create(join(path, `tang-${servers.length}`), curve)
      servers.push(server)
      return server
    },
    [Symbol.asyncDispose]: async () => {
      for (const server of servers) await server.stop()
      await rm(path, { recursive: true, force: true })
    },
  }
}

/** A policy over these servers; one server without a threshold is a plain `tang` pin. */
export function tangPolicy(servers: readonly Pick<Tang, 'config'>[], threshold?: number): Policy {
  const [only] = servers
  if (threshold === undefined && only !== undefined) return parsePolicy('tang', only.config)
  return parsePolicy('sss', { t: threshold, pins: { tang: servers.map(({ config }) => config) } })
}

/** Runs a clevis command; the exit code is an answer. */
export async function clevis(
  args: readonly string[],
  options: RunOptions = {},
): Promise<{ code: number; text: string; stderr: string }> {
  const codes = [0, 1, 2, 3, 4, 5]
  const result = await run('clevis', args, { accept: codes, ...options })
  return { code: result.code, text: result.stdout.toString('utf8'), stderr: result.stderr }
}

/**
 * The same JWE with one character changed. Not the last one: its low bits say nothing, so another
 * character there can be the same bytes.
 */
export function altered(jwe: string): string {
  const at = jwe.trimEnd().length - 2
  return `${jwe.slice(0, at)}${jwe[at] === 'A' ? 'B' : 'A'}${jwe.slice(at + 1)}`
}

/** SHA-256 of a file or device, in hex. */
export async function digest(path: string): Promise<string> {
  const { stdout } = await run('sha256sum', [path])
  return stdout.toString('utf8').slice(0, 64)
}

const algorithms = { 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512' } as const

class RunningTang implements Tang {
  readonly directory: string
  #curve: keyof typeof algorithms
  #running: RunningProgram | undefined
  #port: number | undefined
  thp = ''

  private constructor(directory: string, curve: keyof typeof algorithms) {
    this.directory = directory
    this.#curve = curve
  }

  static async create(directory: string, curve: keyof typeof algorithms): Promise<RunningTang> {
    const server = new RunningTang(directory, curve)
    await run('mkdir', ['-p', directory])
    await server.#makeKeys()
    await server.start()
    await server.refresh()
    return server
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  get config(): { url: string; thp: string } {
    return { url: this.url, thp: this.thp }
  }

  async start(): Promise<void> {
    const { running, port } = await listenAsTangd(this.directory, this.#port)
    this.#running = running
    this.#port = port
  }

  async stop(): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]()
    this.#running = undefined
  }

  async rotate(): Promise<void> {
    const names = await this.#names()
    for (const name of names.filter((text) => !text.startsWith('.'))) {
      await run('mv', [join(this.directory, name), join(this.directory, `.${name}`)])
    }
    await this.#makeKeys()
  }

  async forget(): Promise<void> {
    const names = await this.#names()
    for (const name of names.filter((text) => text.startsWith('.'))) {
      await rm(join(this.directory, name))
    }
  }

  async refresh(): Promise<void> {
    const { stdout } = await run('curl', ['-sf', `${this.url}/adv`])
    const { signingKeys } = await verifyAdvertisement(stdout.toString('utf8'))
    this.thp = signingKeys.map((key) => thumbprint(key))[0] ?? ''
  }

  async #names(): Promise<string[]> {
    const { stdout } = await run('ls', ['-A', this.directory])
    return stdout
      .toString('utf8')
      .split('\n')
      .filter((name) => name.endsWith('.jwk'))
  }

  async #makeKeys(): Promise<void> {
    const kinds = [{ alg: algorithms[this.#curve] }, { alg: 'ECMR', kty: 'EC', crv: this.#curve }]
    for (const kind of kinds) {
      const { stdout } = await run('jose', ['jwk', 'gen', '-i', JSON.stringify(kind)])
      const jwk = parseJson(stdout.toString('utf8'), 'a generated key') as AnyJwk // jose made it
      await writeFile(join(this.directory, `${thumbprint(jwk)}.jwk`), stdout)
    }
  }
}
