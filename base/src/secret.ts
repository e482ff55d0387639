import { randomBytes, timingSafeEqual } from 'node:crypto'
import { inspect } from 'node:util'
import { baseFault } from './faults.ts'

/**
 * Bytes that must not be shown. Prints as `[secret]` however it is printed, compares in constant
 * time and is overwritten on dispose. JavaScript cannot promise that no other copy exists:
 * strings and intermediate buffers made by libraries stay until they are collected.
 */
export class Secret implements Disposable {
  #bytes: Buffer | undefined

  private constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Takes the bytes over without copying; the caller must not keep using them. */
  static take(bytes: Uint8Array): Secret {
    return new Secret(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  }

  /** A copy of the bytes, or of the text's UTF-8 bytes. */
  static copy(source: Uint8Array | string): Secret {
    return new Secret(
      typeof source === 'string' ? Buffer.from(source, 'utf8') : Buffer.from(source),
    )
  }

  static random(length: number): Secret {
    return new Secret(randomBytes(length))
  }

  get length(): number {
    return this.reveal().length
  }

  /** The bytes themselves, not a copy: they become zeros when the secret is disposed. */
  reveal(): Buffer {
    if (this.#bytes === undefined)
      throw baseFault('base.secret_disposed', 'a wiped secret was used')
    return this.#bytes
  }

  equals(other: Secret): boolean {
    const [mine, theirs] = [this.reveal(), other.reveal()]
    return mine.length === theirs.length && timingSafeEqual(mine, theirs)
  }

  clone(): Secret {
    return Secret.copy(this.reveal())
  }

  [Symbol.dispose](): void {
    this.#bytes?.fill(0)
    this.#bytes = undefined
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [inspect.custom](): string {
    return '[secret]'
  }
}
