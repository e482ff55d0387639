import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { canonicalJson, Secret } from '@holdfast/base'
import { coordinatorFault } from './faults.ts'

/** Where a secret stands: any other place makes it unreadable. */
export interface CellPlace {
  cluster: string
  table: string
  row: string
  column: string
}

/**
 * The key that secrets in the store are encrypted with (A256GCM, random nonce). One key per
 * generation; a rotation makes a new one long before random nonces could repeat.
 */
export class DataKey implements Disposable {
  readonly generation: number
  readonly #key: Secret

  constructor(generation: number, key: Secret) {
    this.generation = generation
    this.#key = key
  }

  static random(generation: number): DataKey {
    return new DataKey(generation, Secret.random(32))
  }

  /** nonce (12) ‖ ciphertext ‖ tag (16), bound to its place and generation. */
  encrypt(plaintext: Secret, place: CellPlace): Buffer {
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', this.#key.reveal(), nonce).setAAD(
      this.#context(place),
    )
    const body = Buffer.concat([cipher.update(plaintext.reveal()), cipher.final()])
    return Buffer.concat([nonce, body, cipher.getAuthTag()])
  }

  /** @throws Fault coordinator.row_unreadable when moved, altered, or of another generation */
  decrypt(value: Uint8Array, place: CellPlace): Secret {
    const bytes = Buffer.from(value)
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#key.reveal(), bytes.subarray(0, 12))
      decipher.setAAD(this.#context(place)).setAuthTag(bytes.subarray(-16))
      return Secret.take(
        Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]),
      )
    } catch {
      const where = `${place.table}.${place.column} of ${place.row}`
      throw coordinatorFault(
        'coordinator.row_unreadable',
        `the secret ${where} was altered, moved or encrypted under another key`,
      )
    }
  }

  /** A copy of the key, for sealing it under one more way. */
  copy(): Secret {
    return this.#key.clone()
  }

  [Symbol.dispose](): void {
    this.#key[Symbol.dispose]()
  }

  #context(place: CellPlace): Buffer {
    return Buffer.from(canonicalJson({ ...place, generation: this.generation }), 'utf8')
  }
}
