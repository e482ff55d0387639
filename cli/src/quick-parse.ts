import type { CommandSpec, OptionSpec, Request } from './command.ts'
import { Input } from './input.ts'
import { commonOptions } from './options.ts'

/**
 * Parses the plain command lines of commands without arguments, so that opening a secret at boot
 * need not load the parser and every command: `open --in FILE --retry`. Anything else, mistakes
 * included, is undefined here and left to the parser; a test compares the two.
 */
export function quickParse(
  commands: readonly CommandSpec[],
  words: readonly string[],
): Request | undefined {
  const spec = commands.find(({ name }) => name === words[0])
  if (spec?.load === undefined || spec.arguments !== undefined) return undefined
  const options = [...(spec.options ?? []), ...commonOptions]
  const values = new Map<string, unknown>(options.map((option) => [nameOf(option), option.default]))
  for (let index = 1; index < words.length; index += 1) {
    const word = words[index] ?? ''
    const option = options.find((one) => `--${nameOf(one)}` === word)
    if (option === undefined || option.choices !== undefined) return undefined
    const name = nameOf(option)
    if (!option.flags.includes('<')) {
      values.set(name, true)
      continue
    }
    index += 1
    const value = words[index]
    if (value === undefined || (value.startsWith('-') && value !== '-')) return undefined
    const before = values.get(name)
    const list = Array.isArray(before) ? before : []
    values.set(name, option.repeat === true ? [...list, value] : value)
  }
  return { kind: 'run', path: [spec.name], load: spec.load, input: new Input(values, []) }
}

function nameOf({ flags }: OptionSpec): string {
  return /--([a-z-]+)/.exec(flags)?.[1] ?? ''
}
