import { cliFault } from './faults.ts'

/** The parsed words of one command line, read by type. */
export class Input {
  readonly #options: ReadonlyMap<string, unknown>
  readonly #words: readonly (string | readonly string[])[]

  /**
   * @param options by their long name without dashes
   * @param words the positional arguments in order, a list for a repeated one
   */
  constructor(
    options: ReadonlyMap<string, unknown>,
    words: readonly (string | readonly string[] | undefined)[],
  ) {
    this.#options = options
    this.#words = words.filter((word) => word !== undefined)
  }

  /** The positional argument at `index`, if given. */
  word(index: number): string | undefined {
    const word = this.#words[index]
    return typeof word === 'string' ? word : undefined
  }

  /** @throws Fault cli.usage when it is missing */
  requiredWord(index: number, name: string): string {
    const word = this.word(index)
    if (word === undefined) throw cliFault('cli.usage', `${name} is missing`)
    return word
  }

  /** A repeated positional argument from `index` on. */
  words(index: number): readonly string[] {
    const word = this.#words[index]
    if (word === undefined) return []
    return typeof word === 'string' ? [word] : word
  }

  flag(name: string): boolean {
    return this.#options.get(name) === true
  }

  /** True when somebody gave the option on the command line or it has a default. */
  has(name: string): boolean {
    return this.#options.get(name) !== undefined
  }

  text(name: string): string | undefined {
    const value = this.#options.get(name)
    return typeof value === 'string' ? value : undefined
  }

  /** @throws Fault cli.usage when it is missing */
  requiredText(name: string): string {
    const value = this.text(name)
    if (value === undefined) throw cliFault('cli.usage', `--${name} is missing`)
    return value
  }

  /** All values of a repeated option. */
  texts(name: string): readonly string[] {
    const value = this.#options.get(name)
    if (value === undefined) return []
    return Array.isArray(value) ? value.map(String) : [String(value)]
  }

  /** A whole number in a range. @throws Fault cli.usage */
  count(name: string, least = 0, most = Number.MAX_SAFE_INTEGER): number | undefined {
    const text = this.text(name)
    if (text === undefined) return undefined
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= least && value <= most) return value
    const range = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `${least} to ${most}`
    throw cliFault('cli.usage', `--${name} must be a whole number, ${range}, not "${text}"`)
  }

  /** `NAME=VALUE` pairs of a repeated option. @throws Fault cli.usage */
  pairs(name: string): ReadonlyMap<string, string> {
    const pairs = this.texts(name).map((text): [string, string] => {
      const at = text.indexOf('=')
      if (at > 0 && at < text.length - 1) return [text.slice(0, at), text.slice(at + 1)]
      throw cliFault('cli.usage', `--${name} needs NAME=FILE, not "${text}"`)
    })
    return new Map(pairs)
  }
}
