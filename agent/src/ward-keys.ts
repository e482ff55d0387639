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
//   DIR/wards/WARD/EPOCH.retired  that epoch and all before it are over; no key of them is made again
// Making a key that is there gives the same key: a repeated order changes nothing. The mark comes before
// the keys go, so that one write ends all of them, whenever the power goes.
//
// Changes are made one at a time, in the order of the calls: orders may come at once, from a session
// that has just ended and from the next. The directory's lock keeps other processes out. Answering wards
// does not wait for them.

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

/** The files of a ward: epochs that have one, ascending, and the epoch up to which all are over. */
interface Standing {
  files: number[]
  retired: number
}

export class WardKeys {
  readonly #directory: string
  readonly #keeping: KeySeal
  #queue: Promise<unknown> = Promise.resolve()

  constructor(directory: string, keeping: KeySeal = plainSeal) {
    this.#directory = join(directory, 'wards')
    this.#keeping = keeping
  }

  /** Seals the keys that were made before there was a TPM. */
  async sealPlain(): Promise<void> {
    if (this.#keeping.kind !== 'file') await this.#inTurn(() => this.#sealPlain())
  }

  async #sealPlain(): Promise<void> {
    for (const ward of await this.wards()) {
      for (const epoch of await this.epochs(ward)) {
        const bytes = await readIfPresent(this.#path(ward, epoch), 16_384)
        if (bytes === undefined || isSealed(bytes)) continue
        using content = Secret.take(bytes)
        await this.#write(ward, epoch, content)
      }
    }
  }

  /**
   * Destroys what is left of retired keys, when the power went while they were being destroyed. One
   * that cannot be destroyed keeps no other; the first fault is thrown at the end.
   */
  async finishRetiring(): Promise<void> {
    await this.#inTurn(async () => {
      const faults: unknown[] = []
      for (const ward of await this.#folders())
        await this.#destroyRetired(ward).catch((fault: unknown) => faults.push(fault))
      if (faults.length > 0) throw faults[0]
    })
  }

  async #write(ward: string, epoch: number, content: Secret): Promise<void> {
    using written = await this.#keeping.wrap(sealedName(ward, epoch), content)
    await writeDurable(this.#path(ward, epoch), written.reveal())
  }

  /**
   * Makes the key of a ward's epoch, or gives the one that was made before; the public half.
   * @throws Fault agent.ward_stale when the epoch was retired, agent.request_malformed
   */
  async prepare(ward: string, identity: string, epoch: number): Promise<EcPublicJwk> {
    if (keyIdOf(identity) !== ward) throw malformed('the identity is not of the ward')
    return await this.#inTurn(() => this.#prepare(ward, identity, epoch))
  }

  async #prepare(ward: string, identity: string, epoch: number): Promise<EcPublicJwk> {
    if (epoch <= (await this.#standing(ward)).retired) throw stale(ward, epoch)
    const found = await this.#read(ward, epoch)
    if (found !== undefined) return bareJwk(found.key)
    const key = generateEcKey('P-256')
    const file = { v: 1, ward, identity, epoch, key }
    using content = Secret.copy(`${canonicalJson(file)}\n`)
    await ensureDirectory(this.#folder(ward))
    await this.#write(ward, epoch, content)
    return bareJwk(key)
  }

  /** Destroys the key of an epoch and all before it; says how many there were. */
  async retire(ward: string, epoch: number): Promise<number> {
    const folder = this.#folder(ward)
    return await this.#inTurn(async () => {
      await ensureDirectory(folder)
      const { retired } = await this.#standing(ward)
      if (epoch > retired) await writeDurable(join(folder, `${epoch}.retired`), '')
      return await this.#destroyRetired(ward)
    })
  }

  async #destroyRetired(ward: string): Promise<number> {
    const { files, retired } = await this.#standing(ward)
    const over = files.filter((epoch) => epoch <= retired)
    for (const epoch of over) await shredDurable(this.#path(ward, epoch))
    return over.length
  }

  /**
   * The key by its thumbprint.
   * @throws Fault agent.ward_unknown, agent.ward_stale, agent.ward_key_absent (details.epochs),
   *   agent.ward_key_damaged
   */
  async find(ward: string, epoch: number, kid: string): Promise<WardKey> {
    // The key before the mark: one that is read while it is destroyed is damaged, and marked by then.
    const [reading] = await Promise.allSettled([this.#read(ward, epoch)])
    const { files, retired } = await this.#standing(ward)
    if (files.length === 0 && retired === 0)
      throw agentFault('agent.ward_unknown', `node ${ward} is not a ward of this guardian`)
    if (epoch <= retired) throw stale(ward, epoch)
    if (reading.status === 'rejected') throw reading.reason
    if (reading.value?.kid === kid) return reading.value
    const epochs = files.filter((each) => each > retired)
    throw agentFault(
      'agent.ward_key_absent',
      `this guardian has no key ${kid} of epoch ${epoch}; it has epochs ${epochs.join(', ') || 'none'}`,
      { details: { epochs } },
    )
  }

  /** The epochs of a ward that have keys and are not over, in their order. */
  async epochs(ward: string): Promise<number[]> {
    const { files, retired } = await this.#standing(ward)
    return files.filter((epoch) => epoch > retired)
  }

  /** Makes the directory of all wards. */
  async open(): Promise<void> {
    await ensureDirectory(this.#directory)
  }

  /** Everybody that this node guards. Makes nothing: a node that has just forgotten itself is asked too. */
  async wards(): Promise<string[]> {
    const all = await this.#folders()
    const living = await Promise.all(all.map(async (ward) => (await this.epochs(ward)).length > 0))
    return all.filter((_, index) => living[index])
  }

  /** Runs a change after those before it, however they ended. */
  async #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(change)
    this.#queue = turn.catch(() => undefined)
    return await turn
  }

  /** Every folder of a ward; what else somebody has put there is nothing of ours. */
  async #folders(): Promise<string[]> {
    return (await listDirectory(this.#directory)).filter(isNodeId)
  }

  async #standing(ward: string): Promise<Standing> {
    const names = await listDirectory(this.#folder(ward))
    const numbers = (form: RegExp) =>
      names.flatMap((name) => form.exec(name)?.[1] ?? []).map(Number)
    const files = numbers(/^(\d{1,15})\.jwk$/).sort((a, b) => a - b)
    return { files, retired: Math.max(0, ...numbers(/^(\d{1,15})\.retired$/)) }
  }

  /** The name comes from outside: only an exact node id becomes a path. */
  #folder(ward: string): string {
    if (!isNodeId(ward)) throw malformed('that is not a node id')
    return join(this.#directory, ward)
  }

  #path(ward: string, epoch: number): string {
    return join(this.#folder(ward), `${epoch}.jwk`)
  }

  async #read(ward: string, epoch: number): Promise<WardKey | undefined> {
    const path = this.#path(ward, epoch)
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

const isNodeId = (name: string) => /^[A-Za-z0-9_-]{43}$/.test(name)

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
