import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { join } from 'node:path'
import {
  canonicalJson,
  fromBase64url,
  isFault,
  messageOf,
  parseJson,
  readIfPresent,
  type Secret,
  writeDurable,
} from '@holdfast/base'
import { z } from 'zod'
import { agentFault } from './faults.ts'

// What a node must know before its vault is open, kept outside of it. Rules of this file:
// - two copies, each written whole; a write goes to one, then to the other, so one is always whole;
// - the higher version wins, and the other copy is brought up to it when it is read;
// - a checksum tells damage, a MAC under a key from the node's identity tells somebody else's copy;
// - both copies bad is a fault, never "nothing was ever written".
// Somebody who can write the disk can put two old copies back: only a TPM's counter would tell.

const format = 'holdfast-boot-state 1'
const sizeLimit = 1024 * 1024
const copyNames = ['boot-state.a', 'boot-state.b'] as const

const copySchema = z.strictObject({
  format: z.literal(format),
  version: z.number().int().min(1),
  body: z.unknown(),
  checksum: z.string(),
  mac: z.string(),
})

export interface BootStateOptions<T> {
  directory: string
  /** 32 bytes, from the node's identity. */
  key: Secret
  /** Must throw on anything it does not know. */
  parse: (value: unknown) => T
}

/** A state as it was read. */
export interface StoredState<T> {
  version: number
  body: T
  /** The copies that were damaged, missing or behind, and have been written anew. */
  repaired: readonly string[]
}

type Copy<T> =
  | { state: 'absent'; name: string }
  | { state: 'bad'; name: string; reason: string; foreign: boolean }
  | { state: 'good'; name: string; version: number; body: T; text: string }

/** One copy, as a look from outside finds it: a version, or a problem, or neither when it is absent. */
export interface CopyStanding {
  name: string
  version?: number
  problem?: string
}

function standingOf(copy: Copy<unknown>): CopyStanding {
  if (copy.state === 'absent') return { name: copy.name }
  if (copy.state === 'bad') return { name: copy.name, problem: copy.reason }
  return { name: copy.name, version: copy.version }
}

/** The two copies of one node's boot state. One process uses it at a time: hold a lock. */
export class BootStateStore<T> {
  readonly #options: BootStateOptions<T>
  #version = 0

  constructor(options: BootStateOptions<T>) {
    this.#options = options
  }

  /**
   * The newest whole copy, after repairing the other; undefined when neither copy exists.
   * @throws Fault agent.state_damaged, agent.state_foreign when there are copies and none can be used
   */
  async read(): Promise<StoredState<T> | undefined> {
    const copies = await Promise.all(copyNames.map((name) => this.#readCopy(name)))
    const good = copies.filter((copy) => copy.state === 'good')
    const newest = good.toSorted((a, b) => b.version - a.version)[0]
    if (newest === undefined) {
      if (copies.every(({ state }) => state === 'absent')) return undefined
      throw unusable(this.#options.directory, copies)
    }
    this.#version = newest.version
    const text = this.#encode(newest.version, newest.body)
    const repaired = copies.filter((copy) => copy.state !== 'good' || copy.text !== text)
    for (const { name } of repaired) await writeDurable(this.#path(name), text)
    return {
      version: newest.version,
      body: newest.body,
      repaired: repaired.map(({ name }) => name),
    }
  }

  /** How each copy stands, and the newest whole one. Nothing is repaired: for a look from outside. */
  async inspect(): Promise<{ copies: readonly CopyStanding[]; body?: T }> {
    const copies = await Promise.all(copyNames.map((name) => this.#readCopy(name)))
    const newest = copies
      .filter((copy) => copy.state === 'good')
      .toSorted((a, b) => b.version - a.version)[0]
    return {
      copies: copies.map(standingOf),
      ...(newest === undefined ? {} : { body: newest.body }),
    }
  }

  /** Replaces the state; it is durable when this resolves. */
  async write(body: T): Promise<void> {
    this.#version += 1
    const text = this.#encode(this.#version, body)
    for (const name of copyNames) await writeDurable(this.#path(name), text)
  }

  #path(name: string): string {
    return join(this.#options.directory, name)
  }

  #encode(version: number, body: T): string {
    const content = canonicalJson([format, version, body])
    const checksum = createHash('sha256').update(content).digest('base64url')
    const mac = this.#mac(content).toString('base64url')
    return `${canonicalJson({ format, version, body, checksum, mac })}\n`
  }

  #mac(content: string): Buffer {
    return createHmac('sha256', this.#options.key.reveal()).update(content).digest()
  }

  async #readCopy(name: string): Promise<Copy<T>> {
    let bytes: Buffer | undefined
    try {
      bytes = await readIfPresent(this.#path(name), sizeLimit)
    } catch (error) {
      if (!isFault(error)) throw error
      return { state: 'bad', name, reason: error.message, foreign: false }
    }
    if (bytes === undefined) return { state: 'absent', name }
    try {
      return this.#decode(name, bytes.toString('utf8'))
    } catch (error) {
      return { state: 'bad', name, reason: messageOf(error), foreign: false }
    }
  }

  #decode(name: string, text: string): Copy<T> {
    const copy = copySchema.parse(parseJson(text, name, sizeLimit))
    const content = canonicalJson([format, copy.version, copy.body])
    if (createHash('sha256').update(content).digest('base64url') !== copy.checksum)
      return { state: 'bad', name, reason: 'its checksum does not match', foreign: false }
    const [stated, expected] = [fromBase64url(copy.mac, 'the MAC'), this.#mac(content)]
    if (stated.length !== expected.length || !timingSafeEqual(stated, expected))
      return { state: 'bad', name, reason: "it is not under this node's identity", foreign: true }
    const body = this.#options.parse(copy.body)
    return { state: 'good', name, version: copy.version, body, text }
  }
}

function unusable(directory: string, copies: readonly Copy<unknown>[]): Error {
  const reasons = copies.map((copy) =>
    copy.state === 'bad' ? `${copy.name}: ${copy.reason}` : `${copy.name} is missing`,
  )
  const foreign = copies.some((copy) => copy.state === 'bad' && copy.foreign)
  return agentFault(
    foreign ? 'agent.state_foreign' : 'agent.state_damaged',
    `no copy of the boot state in ${directory} can be used: ${reasons.join('; ')}`,
    {
      hint: 'the vault is untouched: put a good copy back, or open it with the holders and enrol anew',
    },
  )
}
