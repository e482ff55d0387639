import { timingSafeEqual } from 'node:crypto'
import { join } from 'node:path'
import { readIfPresent, removeDurable, writeDurable } from '@holdfast/base'
import { open, type Pins, type Policy, seal } from '@holdfast/seal'
import { derivedKey, type NodeKeys } from './identity.ts'

// Binds a node's directory to the machine that it was made on: a key of the node, sealed by this
// machine's TPM. On another machine, with the same disk, it does not open. That protects nothing by
// itself; it makes a disk that was moved or copied visible.

const policy: Policy = { kind: 'pin', pin: 'tpm2', config: {} }
const name = 'machine.jwe'

export class TpmBinding {
  readonly #path: string
  readonly #keys: NodeKeys
  readonly #pins: Pins

  constructor(directory: string, keys: NodeKeys, pins: Pins) {
    this.#path = join(directory, name)
    this.#keys = keys
    this.#pins = pins
  }

  /** `moved`: there is a binding, and not to this machine. */
  async check(): Promise<'bound' | 'unbound' | 'moved'> {
    const sealed = await readIfPresent(this.#path, 65_536)
    if (sealed === undefined) return 'unbound'
    using own = derivedKey(this.#keys, 'machine')
    try {
      using found = await open(this.#pins, sealed.toString('utf8').trim(), { timeout: 30_000 })
      const [a, b] = [own.reveal(), found.reveal()]
      return a.length === b.length && timingSafeEqual(a, b) ? 'bound' : 'moved'
    } catch {
      return 'moved'
    }
  }

  async make(): Promise<void> {
    using own = derivedKey(this.#keys, 'machine')
    await writeDurable(this.#path, `${await seal(this.#pins, policy, own)}\n`)
  }

  /** A machine that was exchanged on purpose is bound anew by `renew`. */
  async drop(): Promise<void> {
    await removeDurable(this.#path)
  }
}
