import { baseFault } from './faults.ts'
import { readIfPresent, removeDurable, writeDurable } from './files.ts'
import { canonicalJson, parseJson } from './json.ts'

const recordLimit = 16 * 1024 * 1024

/**
 * One JSON document on disk that is replaced whole: journals, proofs, counters. A reader sees the
 * old or the new document, never a mixture.
 */
export class DurableRecord<T> {
  readonly path: string
  readonly #parse: (value: unknown) => T

  /** `parse` must throw on anything it does not know; its error becomes the cause of the fault. */
  constructor(path: string, parse: (value: unknown) => T) {
    this.path = path
    this.#parse = parse
  }

  /** The document, or undefined when there is none. A damaged one is a fault, never "none". */
  async read(): Promise<T | undefined> {
    const bytes = await readIfPresent(this.path, recordLimit)
    if (bytes === undefined) return undefined
    try {
      return this.#parse(parseJson(bytes.toString('utf8'), this.path, recordLimit))
    } catch (cause) {
      throw baseFault('base.record_damaged', `${this.path} is damaged`, {
        cause,
        hint: `move ${this.path} aside after reading it; nothing else was changed`,
      })
    }
  }

  async write(value: T): Promise<void> {
    await writeDurable(this.path, `${canonicalJson(value)}\n`)
  }

  async clear(): Promise<void> {
    await removeDurable(this.path)
  }
}
