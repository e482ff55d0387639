import { type Command, CommanderError, Option, Command as Parser } from 'commander'
import type { CommandSpec, OptionSpec, Request } from './command.ts'
import { cliFault } from './faults.ts'
import { helpSections } from './help.ts'
import { Input } from './input.ts'
import { commonOptions } from './options.ts'

/**
 * Parses a command line against the tree without running anything.
 * @throws Fault cli.usage, with the nearest help as its hint
 */
export async function parse(
  tree: CommandSpec,
  words: readonly string[],
  version: string,
): Promise<Request> {
  const found: { request?: Request } = {}
  let printed = ''
  const root = build(narrowed(tree, words), [], (request) => {
    found.request = request
  })
  const output = {
    writeOut: (text: string) => {
      printed += text
    },
    writeErr: (text: string) => {
      printed += text
    },
    outputError: () => undefined,
    getOutHelpWidth: () => 100,
    getErrHelpWidth: () => 100,
    getOutHasColors: () => false,
    getErrHasColors: () => false,
  }
  root.version(version, '-V, --version', 'print the version').configureOutput(output)
  everyCommand(root, (command) => command.configureOutput(output).exitOverride())
  try {
    await root.parseAsync(idsLast(tree, words), { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return afterCommander(error, printed, commandAt(root, words))
  }
  return found.request ?? { kind: 'print', text: root.helpInformation() }
}

/**
 * A thumbprint, the beginning of a node's id, or an id that an older version made, may begin with a
 * dash. As an argument it is moved behind `--`, with what stands after it, so that it is not taken for
 * an option; as the value of an option it is left where it is.
 */
function idsLast(tree: CommandSpec, words: readonly string[]): string[] {
  if (words.includes('--')) return [...words]
  const { spec, takesValue } = commandOf(tree, words)
  if (!spec.arguments?.some(({ name }) => idArguments.includes(name))) return [...words]
  const isValue = (index: number) => takesValue.has(words[index - 1] ?? '')
  const known = optionNames(spec)
  const first = words.findIndex((word, index) => isDashedId(word, known) && !isValue(index))
  if (first === -1) return [...words]
  const moves = (word: string, index: number) =>
    index >= first && !isValue(index) && (!word.startsWith('-') || isDashedId(word, known))
  return [...words.filter((word, index) => !moves(word, index)), '--', ...words.filter(moves)]
}

/** Arguments that may be ids. */
const idArguments: readonly string[] = ['NAME', 'ID', 'KID']

/** Options have two dashes and small letters; `-json` is one that was mistyped. */
function isDashedId(word: string, known: readonly string[]): boolean {
  if (/^-[\w-]{42}$/.test(word)) return true
  return /^-[\w-]{3,}$/.test(word) && !/^--[a-z-]+$/.test(word) && !known.includes(`-${word}`)
}

/** The command that the words name, and the options up to it that take a value. */
function commandOf(tree: CommandSpec, words: readonly string[]) {
  let spec = tree
  let takesValue = new Set(optionNames(tree, '<'))
  for (const [index, word] of words.entries()) {
    if (word.startsWith('-') || takesValue.has(words[index - 1] ?? '')) continue
    const child = spec.children?.find(({ name }) => name === word)
    if (child === undefined) break
    spec = child
    takesValue = new Set([...takesValue, ...optionNames(child, '<')])
  }
  return { spec, takesValue }
}

function optionNames({ options = [] }: CommandSpec, mark = ''): string[] {
  const having = [...options, ...commonOptions].filter(({ flags }) => flags.includes(mark))
  return having.map(({ flags }) => flags.split(' ')[0] ?? '')
}

/** The tree with only the branch that the first word names, so that a start does not build them all. */
function narrowed(tree: CommandSpec, [first]: readonly string[]): CommandSpec {
  const branch = tree.children?.find(({ name }) => name === first)
  return branch === undefined ? tree : { ...tree, children: [branch] }
}

/** The commander tree of the specs; `found` is told what the words ask for. */
function build(
  spec: CommandSpec,
  above: readonly string[],
  found: (request: Request) => void,
): Command {
  const command = new Parser(spec.name)
  const path = above.length === 0 && spec.name === 'holdfast' ? [] : [...above, spec.name]
  command.summary(spec.summary).description([`${spec.summary}`, ...(spec.about ?? [])].join('\n\n'))
  command.helpCommand(false).allowExcessArguments(false).showSuggestionAfterError(true)
  for (const argument of spec.arguments ?? []) {
    const name = argument.repeat === true ? `${argument.name}...` : argument.name
    const made = command.createArgument(
      argument.optional === true ? `[${name}]` : `<${name}>`,
      argument.says,
    )
    command.addArgument(argument.choices === undefined ? made : made.choices(argument.choices))
  }
  for (const option of spec.options ?? []) command.addOption(optionOf(option))
  for (const option of commonOptions) command.addOption(optionOf(option))
  command.addHelpText('after', () => helpSections(spec, path))
  for (const child of spec.children ?? [])
    command.addCommand(build(child, path, found), { hidden: child.hidden === true })
  const { load } = spec
  if (load !== undefined) {
    command.action(() => {
      const values = new Map(
        command.options.map((option) => {
          const value = givenValue(command, option)
          // Commander keeps `--no-wait` as a `wait` that is false; here it is a flag of its own.
          return [nameOf(option), option.negate ? value === false : value]
        }),
      )
      found({ kind: 'run', path, load, input: new Input(values, command.processedArgs) })
    })
  }
  return command
}

function optionOf(spec: OptionSpec): Option {
  const option = new Option(spec.flags, spec.says)
  if (spec.choices !== undefined) option.choices(spec.choices)
  if (spec.default !== undefined) option.default(spec.default)
  if (spec.repeat === true) {
    option.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value])
  }
  return option
}

function nameOf(option: Option): string {
  return (option.long ?? option.flags).replace(/^--/, '')
}

/** A common option may stand before or after the name of a subcommand. */
function givenValue(command: Command, option: Option): unknown {
  const name = option.attributeName()
  for (let here: Command | null = command; here !== null; here = here.parent) {
    if (here.getOptionValueSource(name) === 'cli') return here.getOptionValue(name)
  }
  return command.getOptionValue(name)
}

function everyCommand(command: Command, visit: (command: Command) => void): void {
  visit(command)
  for (const child of command.commands) everyCommand(child, visit)
}

/** The deepest command that the words name. */
function commandAt(root: Command, words: readonly string[]): Command {
  let command = root
  for (const word of words) {
    const child = command.commands.find((candidate) => candidate.name() === word)
    if (child === undefined) {
      if (word.startsWith('-')) continue
      break
    }
    command = child
  }
  return command
}

function afterCommander(error: CommanderError, printed: string, command: Command): Request {
  if (error.exitCode === 0) return { kind: 'print', text: printed }
  const names: string[] = []
  for (let here: Command | null = command; here !== null; here = here.parent) {
    names.unshift(here.name())
  }
  const help = `${names.join(' ')} --help`
  if (error.code === 'commander.help') {
    const known = command
      .createHelp()
      .visibleCommands(command)
      .map((child) => child.name())
      .join(', ')
    throw cliFault('cli.usage', `${names.join(' ')} needs a command: ${known}`, { hint: help })
  }
  const [message = '', ...more] = error.message.replace(/^error: /, '').split('\n')
  const suggestion = /Did you mean (.*)\?/s.exec(more.join(' '))?.[1]
  throw cliFault('cli.usage', message, { hint: hintOf(command, suggestion, help) })
}

/** What was probably meant; else what this command knows, when it has commands of its own. */
function hintOf(command: Command, suggestion: string | undefined, help: string): string {
  if (suggestion !== undefined) return `did you mean ${suggestion}? all there is: ${help}`
  const known = command.commands.map((child) => child.name())
  if (command.parent === null || known.length === 0) return help
  return `its commands: ${known.join(', ')}; ${help}`
}
