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
 * A thumbprint, or an id that an older version made, may begin with a dash. As an argument it is moved
 * behind `--`, so that it is not taken for an option; as the value of an option it is left where it is.
 */
function idsLast(tree: CommandSpec, words: readonly string[]): string[] {
  if (words.includes('--')) return [...words]
  const takesValue = valueOptions(tree)
  const isArgument = (word: string, index: number) =>
    /^-(?:[\w-]{42}|\w[\w-]{20})$/.test(word) && !takesValue.has(words[index - 1] ?? '')
  const moved = words.filter(isArgument)
  if (moved.length === 0) return [...words]
  return [...words.filter((word, index) => !isArgument(word, index)), '--', ...moved]
}

function valueOptions({ options = [], children = [] }: CommandSpec): Set<string> {
  const own = [...options, ...commonOptions].filter(({ flags }) => flags.includes('<'))
  const names = own.map(({ flags }) => flags.split(' ')[0] ?? '')
  return new Set([...names, ...children.flatMap((child) => [...valueOptions(child)])])
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
