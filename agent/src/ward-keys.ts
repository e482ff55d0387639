import { createPublicKey, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import {
  canonicalJson,
  ensureDirectory,
  listDirectory,
  parseJson,
  readIfPresent,
  Secret,
  shredDurable,
  writeDurable,
} from '@holdfast/base'
import {
  bareJwk,
  type EcPrivateJwk,
  type EcPublicJwk,
  generateEcKey,
  parseEcPublicJwk,
  thumbprint,
} from '@holdfast/crypto'
import { keyId } from '@holdfast/link'
import { z } from 'zod'
import { agentFault } from './faults.ts'
import { isSealed, type KeySeal, plainSeal } from './key-seal.ts'

// What a guardian holds for its wards: one exchange key per ward and epoch, outside the guardian's own
// vault so that a power cut of the whole fleet is no mutual lock.
//   DIR/wards/WARD/EPOCH.jwk      the private key, with the ward's public identity
//   DIR/wards/WARD/EPOCH.retired  that epoch is over; its key is never made again
// Making a key that is there gives the same key: a repeated order changes nothing.

export interface WardKey {
  ward: string
  identity: KeyObject
  epoch: number
  kid: string
  key: EcPrivateJwk
}

const fileSchema = z.strictObject({
  v: z.literal(1),
  ward: z.string(),
  identity: z.string(),
  epoch: z.number().int(),
  key: z.record(z.string(), z.unknown()),
})

export class WardKeys {
  readonly #directory: string
  readonly #keeping: KeySeal

  constructor(directory: string, keeping: KeySeal = plainSeal) {
    this.#directory = join(directory, 'wards')
    this.#keeping = keeping
  }

  /** Seals the keys that were made before there was a TPM. */
  async sealPlain(): Promise<void> {
    if (this.#keeping.kind === 'file') return
    for (const ward of await this.wards()) {
      for (const epoch of await this.epochs(ward)) {
        const path = join(this.#folder(ward), `${epoch}.jwk`)
        const bytes = await readIfPresent(path, 16_384)
        if (bytes === undefined || isSealed(bytes)) continue
        using content = Secret.take(bytes)
        await this.#write(ward, epoch, content)
      }
    }
  }

  async #write(ward: string, epoch: number, content: Secret): Promise<void> {
    using written = await this.#keeping.wrap(sealedName(ward, epoch), content)
    await writeDurable(join(this.#folder(ward), `${epoch}.jwk`), written.reveal())
  }

  /**
   * Makes the key of a ward's epoch, or gives the one that was made before; the public half.
   * @throws Fault agent.ward_stale when the epoch was retired, agent.request_malformed
   */
  async prepare(ward: string, identity: string, epoch: number): Promise<EcPublicJwk> {
    if (keyIdOf(identity) !== ward) throw malformed('the identity is not of the ward')
    const folder = this.#folder(ward)
    await ensureDirectory(folder)
    const found = await this.#read(ward, epoch)
    if (found !== undefined) return bareJwk(found.key)
    if ((await this.#names(ward)).includes(`${epoch}.retired`)) throw stale(ward, epoch)
    const key = generateEcKey('P-256')
    const file = { v: 1, ward, identity, epoch, key }
    using content = Secret.copy(`${canonicalJson(file)}\n`)
    await this.#write(ward, epoch, content)
    return bareJwk(key)
  }

  /** Destroys the key of an epoch and all before it; says how many there were. */
  async retire(ward: string, epoch: number): Promise<number> {
    const epochs = (await this.epochs(ward)).filter((each) => each <= epoch)
    await ensureDirectory(this.#folder(ward))
    await writeDurable(join(this.#folder(ward), `${epoch}.retired`), '')
    for (const each of epochs) {
      if (each !== epoch) await writeDurable(join(this.#folder(ward), `${each}.retired`), '')
      await shredDurable(join(this.#folder(ward), `${each}.jwk`))
    }
    return epochs.length
  }

  /**
   * The key by its thumbprint.
   * @throws Fault agent.ward_unknown, agent.ward_stale, agent.ward_key_absent (details.epochs),
   *   agent.ward_key_damaged
   */
  async find(ward: string, epoch: number, kid: string): Promise<WardKey> {
    const names = await this.#names(ward)
    if (names.length === 0)
      throw agentFault('agent.ward_unknown', `node ${ward} is not a ward of this guardian`)
    if (names.includes(`${epoch}.retired`)) throw stale(ward, epoch)
    const found = await this.#read(ward, epoch)
    if (found?.kid === kid) return found
    const epochs = await this.epochs(ward)
    throw agentFault(
      'agent.ward_key_absent',
      `this guardian has no key ${kid} of epoch ${epoch}; it has epochs ${epochs.join(', ') || 'none'}`,
      { details: { epochs } },
    )
  }

  /** The epochs of a ward that have keys, in their order. */
  async epochs(ward: string): Promise<number[]> {
    return (await this.#names(ward))
      .flatMap((name) => /^(\d{1,15})\.jwk$/.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b)
  }

  /** Everybody that this node guards. */
  async wards(): Promise<string[]> {
    await ensureDirectory(this.#directory)
    const all = await listDirectory(this.#directory)
    const living = await Promise.all(all.map(async (ward) => (await this.epochs(ward)).length > 0))
    return all.filter((_, index) => living[index])
  }

  async #names(ward: string): Promise<string[]> {
    try {
      return await listDirectory(this.#folder(ward))
    } catch (error) {
      if ((error as { code?: string }).code === 'base.file_absent') return []
      throw error
    }
  }

  /** The name comes from outside: only an exact node id becomes a path. */
  #folder(ward: string): string {
    if (!/^[A-Za-z0-9_-]{43}$/.test(ward)) throw malformed('that is not a node id')
    return join(this.#directory, ward)
  }

  async #read(ward: string, epoch: number): Promise<WardKey | undefined> {
    const path = join(this.#folder(ward), `${epoch}.jwk`)
    const bytes = await readIfPresent(path, 16_384)
    if (bytes === undefined) return undefined
    using content = await this.#keeping.unwrap(sealedName(ward, epoch), bytes)
    try {
      const file = fileSchema.parse(parseJson(content.reveal().toString('utf8'), path))
      const { d } = file.key
      if (typeof d !== 'string') throw new TypeError('it holds no private key')
      const key: EcPrivateJwk = { ...parseEcPublicJwk(file.key, path), d }
      const identity = createPublicKey(file.identity)
      return { ward, identity, epoch, kid: thumbprint(key), key }
    } catch {
      // Not even the cause's text: it may have a part of the key in it.
      throw agentFault('agent.ward_key_damaged', `${path} is damaged`, {
        hint: 'the other guardians still count; when its ward is re-shared this key goes',
      })
    }
  }
}

/** What a sealed file says it is, so that one ward's key cannot be put in another's place. */
const sealedName = (ward: string, epoch: number) => `wards/${ward}/${epoch}.jwk`

function keyIdOf(identity: string): string | undefined {
  try {
    return keyId(createPublicKey(identity))
  } catch {
    return undefined
  }
}

function stale(ward: string, epoch: number): Error {
  return agentFault('agent.ward_stale', `epoch ${epoch} of node ${ward} has been retired`, {
    hint: 'the asking disk is an old copy, or its re-share was not finished',
  })
}

function malformed(reason: string): Error {
  return agentFault('agent.request_malformed', `the request cannot be used: ${reason}`)
}
