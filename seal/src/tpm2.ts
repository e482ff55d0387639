import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  canonicalJson,
  fromBase64url,
  isFault,
  isObject,
  type JsonObject,
  parseJson,
  type RunOptions,
  type RunResult,
  run,
  Secret,
  toBase64url,
} from '@holdfast/base'
import { decryptJwe, encryptJwe } from '@holdfast/crypto'
import { sealFault } from './faults.ts'
import { malformed, pinHeader, stringMember } from './header.ts'
import { contentKeyJwk, localHeader, readContentKey } from './null.ts'
import type { Pin } from './pin.ts'

// clevis's `tpm2` pin through tpm2-tools: the content key is sealed under a primary key of the
// owner hierarchy that is made anew each time, so nothing is stored in the TPM itself. The files
// between the commands hold no plaintext (contexts and TPM-wrapped blobs) and live in memory.

export interface Tpm2PinDeps {
  /** TPM2TOOLS_TCTI, such as `device:/dev/tpmrm0` or `swtpm:host=127.0.0.1,port=2321`. */
  tcti?: string
}

interface Tpm2Config {
  hash: string
  key: string
  pcr_bank?: string
  pcr_ids?: string
  pcr_digest?: string
}

const attributes = 'fixedtpm|fixedparent|noda|adminwithpolicy'

export function tpm2Pin({ tcti }: Tpm2PinDeps = {}): Pin {
  const tools = new Tools(tcti)
  return {
    name: 'tpm2',
    local: true,
    machineBound: true,
    interactive: false,
    label: (config) => labelOf(parseConfig(config)),
    seal: async (plaintext, config, options) => {
      const parsed = parseConfig(config)
      using key = Secret.random(32)
      using jwk = Secret.copy(`${canonicalJson(contentKeyJwk(key))}\n`)
      const blobs = await tools.create(parsed, jwk, options.signal)
      const { pcr_digest: _notStored, ...stored } = parsed
      return await encryptJwe(localHeader('tpm2', { ...stored, ...blobs }, options), key, plaintext)
    },
    open: async (jwe, signal) => {
      const own = pinHeader(jwe, 'tpm2')
      const jwkText = await tools.unseal(storedConfig(own), blobsOf(own), signal)
      using text = jwkText
      using key = readContentKey(parseJson(text.reveal().toString('utf8'), 'the TPM object', 4096))
      return decryptJwe(jwe, key)
    },
    inspect: (jwe) => {
      const config = storedConfig(pinHeader(jwe, 'tpm2'))
      return { label: labelOf(config), details: { ...config } }
    },
    policyOf: (jwe) => ({
      kind: 'pin',
      pin: 'tpm2',
      config: { ...storedConfig(pinHeader(jwe, 'tpm2')) },
    }),
  }
}

interface Blobs {
  jwk_pub: string
  jwk_priv: string
}

/** The tpm2-tools commands of one pin, each in its own throw-away directory. */
class Tools {
  readonly #environment: Readonly<Record<string, string>>
  /** Without a resource manager in between, each tool leaves its objects and sessions in the TPM's few places. */
  readonly #unmanaged: boolean
  #last: Promise<unknown> = Promise.resolve()

  constructor(tcti: string | undefined) {
    this.#unmanaged = /^(swtpm|mssim|device:\/dev\/tpm\d)/.test(tcti ?? '')
    this.#environment = tcti === undefined ? {} : { TPM2TOOLS_TCTI: tcti }
  }

  async create(config: Tpm2Config, jwk: Secret, signal?: AbortSignal): Promise<Blobs> {
    return await this.#inDirectory(async (folder) => {
      const options = this.#options(signal)
      const at = (name: string) => join(folder, name)
      await this.#primary(config, at('primary.ctx'), options)
      const policy = await this.#policy(config, folder, options)
      const args = [
        '-Q',
        '-g',
        config.hash,
        '-C',
        at('primary.ctx'),
        '-u',
        at('pub'),
        '-r',
        at('priv'),
      ]
      const attribute = policy.length === 0 ? `${attributes}|userwithauth` : attributes
      await this.#tpm('tpm2_create', [...args, '-a', attribute, ...policy, '-i-'], {
        ...options,
        input: jwk,
      })
      const [publicPart, privatePart] = [await readFile(at('pub')), await readFile(at('priv'))]
      return { jwk_pub: toBase64url(publicPart), jwk_priv: toBase64url(privatePart) }
    })
  }

  async unseal(config: Tpm2Config, blobs: Blobs, signal: AbortSignal): Promise<Secret> {
    return await this.#inDirectory(async (folder) => {
      const options = this.#options(signal)
      const at = (name: string) => join(folder, name)
      await writeFile(at('pub'), fromBase64url(blobs.jwk_pub, 'jwk_pub'))
      await writeFile(at('priv'), fromBase64url(blobs.jwk_priv, 'jwk_priv'))
      await this.#primary(config, at('primary.ctx'), options)
      const load = [
        '-Q',
        '-C',
        at('primary.ctx'),
        '-u',
        at('pub'),
        '-r',
        at('priv'),
        '-c',
        at('load.ctx'),
      ]
      await this.#tpm('tpm2_load', load, options)
      const auth =
        config.pcr_ids === undefined ? [] : ['-p', `pcr:${config.pcr_bank}:${config.pcr_ids}`]
      const { stdout } = await this.#tpm('tpm2_unseal', ['-c', at('load.ctx'), ...auth], options)
      return Secret.take(stdout)
    })
  }

  async #primary(config: Tpm2Config, context: string, options: RunOptions): Promise<void> {
    const args = ['-Q', '-C', 'o', '-g', config.hash, '-G', config.key, '-c', context]
    await this.#tpm('tpm2_createprimary', args, options)
  }

  /** Arguments that tie the object to the PCRs; none without `pcr_ids`. */
  async #policy(config: Tpm2Config, folder: string, options: RunOptions): Promise<string[]> {
    if (config.pcr_ids === undefined) return []
    const file = join(folder, 'policy')
    const args = [
      '-Q',
      '-g',
      config.hash,
      '--policy-pcr',
      '-l',
      `${config.pcr_bank}:${config.pcr_ids}`,
      '-L',
      file,
    ]
    if (config.pcr_digest !== undefined) {
      await writeFile(join(folder, 'pcrs'), fromBase64url(config.pcr_digest, 'pcr_digest'))
      args.push('-f', join(folder, 'pcrs'))
    }
    await this.#tpm('tpm2_createpolicy', args, options)
    return ['-L', file]
  }

  #options(signal?: AbortSignal): RunOptions {
    return {
      environment: this.#environment,
      timeout: 30_000,
      ...(signal === undefined ? {} : { signal }),
    }
  }

  async #tpm(program: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
    try {
      return await tpm(program, args, options)
    } finally {
      if (this.#unmanaged) {
        await run('tpm2_flushcontext', ['-t', '-l', '-s'], {
          environment: this.#environment,
          accept: [0, 1],
        })
      }
    }
  }

  /** One at a time where flushing would take the objects of another operation away. */
  async #inDirectory<T>(work: (folder: string) => Promise<T>): Promise<T> {
    if (!this.#unmanaged) return await this.#inOwnDirectory(work)
    const turn = this.#last.then(() => this.#inOwnDirectory(work))
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  async #inOwnDirectory<T>(work: (folder: string) => Promise<T>): Promise<T> {
    const folder = await mkdtemp(`/dev/shm/holdfast-tpm2-${process.pid}-`)
    try {
      return await work(folder)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
}

async function tpm(
  program: string,
  args: readonly string[],
  options: RunOptions,
): Promise<RunResult> {
  try {
    return await run(program, args, options)
  } catch (cause) {
    if (!isFault(cause) || cause.code !== 'base.program_failed') throw cause
    const reason = cause.message.includes('policy check failed')
      ? 'the PCRs have changed since it was sealed'
      : cause.message
    throw sealFault('seal.tpm_failed', `the TPM did not answer ${program}: ${reason}`, {
      cause,
      hint: 'after a firmware or kernel update open another way, then seal again: holdfast vault regen',
    })
  }
}

function labelOf(config: Tpm2Config): string {
  return config.pcr_ids === undefined ? 'tpm2' : `tpm2 pcr ${config.pcr_bank}:${config.pcr_ids}`
}

function parseConfig(config: JsonObject): Tpm2Config {
  const { hash = 'sha256', key = 'ecc', pcr_bank, pcr_ids, pcr_digest, ...rest } = config
  const [extra] = Object.keys(rest)
  if (extra !== undefined) throw invalid(`tpm2 does not know the member "${extra}"`)
  const ids = Array.isArray(pcr_ids) ? pcr_ids.join(',') : pcr_ids
  const word = (value: unknown): value is string =>
    typeof value === 'string' && /^[a-z0-9_]{2,20}$/.test(value)
  if (!word(hash) || !word(key)) throw invalid('tpm2 "hash" and "key" are algorithm names')
  if (pcr_bank !== undefined && !word(pcr_bank)) throw invalid('tpm2 "pcr_bank" is not a bank name')
  if (pcr_digest !== undefined && typeof pcr_digest !== 'string')
    throw invalid('"pcr_digest" is not base64url')
  if (ids === undefined || ids === '') return { hash, key }
  if (typeof ids !== 'string' || !/^\d{1,2}(,\d{1,2})*$/.test(ids))
    throw invalid('"pcr_ids" is not a list of numbers')
  const digest = pcr_digest === undefined ? {} : { pcr_digest }
  return { hash, key, pcr_bank: pcr_bank ?? 'sha256', pcr_ids: ids, ...digest }
}

function storedConfig(own: JsonObject): Tpm2Config {
  const { jwk_pub: _pub, jwk_priv: _priv, ...config } = own
  const known = ['hash', 'key', 'pcr_bank', 'pcr_ids']
  const entries = Object.entries(config).filter(([name]) => known.includes(name))
  try {
    return parseConfig(Object.fromEntries(entries))
  } catch {
    throw malformed('its TPM header cannot be read')
  }
}

function blobsOf(own: JsonObject): Blobs {
  if (!isObject(own)) throw malformed('its TPM header is missing')
  return {
    jwk_pub: stringMember(own, 'jwk_pub', 'the tpm2 header'),
    jwk_priv: stringMember(own, 'jwk_priv', 'the tpm2 header'),
  }
}

function invalid(reason: string): Error {
  return sealFault('seal.policy_invalid', `the policy is not valid: ${reason}`)
}
