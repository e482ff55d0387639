import type { ArgumentSpec, CommandSpec, OptionSpec } from './command.ts'
import { commonOptions } from './options.ts'

// Completion scripts are generated from the command tree and are static: completing starts no
// program of ours. Every script knows, for each command: its subcommands, its options, which options
// take a value and of what sort, and whether its arguments are files.

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

interface Node {
  /** `holdfast vault list` */
  path: string
  spec: CommandSpec
}

interface Flag {
  long: string
  takesValue: boolean
  choices: readonly string[]
  sort: 'file' | 'directory' | 'text'
  says: string
}

/** The completion script of a shell for this tree. */
export function completionScript(shell: Shell, tree: CommandSpec): string {
  const nodes = nodesOf(tree, [])
  switch (shell) {
    case 'bash':
      return bashScript(nodes)
    case 'zsh':
      return zshScript(nodes)
    case 'fish':
      return fishScript(nodes)
    default:
      return shell satisfies never
  }
}

function nodesOf(spec: CommandSpec, above: readonly string[]): Node[] {
  if (spec.hidden === true) return []
  const names = [...above, spec.name]
  const below = (spec.children ?? []).flatMap((child) => nodesOf(child, names))
  return [{ path: names.join(' '), spec }, ...below]
}

function childrenOf({ spec }: Node): readonly CommandSpec[] {
  return (spec.children ?? []).filter(({ hidden }) => hidden !== true)
}

function flagsOf({ spec }: Node): Flag[] {
  const help: OptionSpec = { flags: '--help', says: 'show the help' }
  return [...(spec.options ?? []), ...commonOptions, help].map((option) => ({
    long: /--[a-z-]+/.exec(option.flags)?.[0] ?? '',
    takesValue: option.flags.includes('<'),
    choices: option.choices ?? [],
    sort: option.completes ?? 'text',
    says: option.says,
  }))
}

/** What the arguments of a command complete to. */
function argumentOf({ spec }: Node): ArgumentSpec | undefined {
  const all = spec.arguments ?? []
  return all.find(({ completes, choices }) => completes !== undefined || choices !== undefined)
}

function bashScript(nodes: readonly Node[]): string {
  const cases = nodes.map((node) => {
    const argument = argumentOf(node)
    const words = [...childrenOf(node).map(({ name }) => name), ...(argument?.choices ?? [])]
    const flags = flagsOf(node).map(({ long }) => long)
    const files = argument?.completes === undefined ? '' : argument.completes
    return `    '${node.path}') words='${words.join(' ')}' flags='${flags.join(' ')}' files='${files}' ;;`
  })
  const values = nodes.flatMap((node) =>
    flagsOf(node)
      .filter(({ takesValue }) => takesValue)
      .map(({ long, choices, sort }) => {
        const value = choices.length > 0 ? choices.join(' ') : `@${sort}`
        return `    '${node.path} ${long}') value='${value}' ;;`
      }),
  )
  const parents = nodes.filter((node) => childrenOf(node).length > 0)
  return `# bash completion of holdfast. Load it: source <(holdfast completion bash)
_holdfast() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  local path=holdfast word index words flags files value=
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    case "$path $word" in
${parents
  .flatMap((node) =>
    childrenOf(node).map(({ name }) => `      '${node.path} ${name}') path="$path $word" ;;`),
  )
  .join('\n')}
    esac
  done
  case "$path" in
${cases.join('\n')}
  esac
  case "$path $previous" in
${values.join('\n')}
  esac
  COMPREPLY=()
  case "$value" in
    @file) mapfile -t COMPREPLY < <(compgen -f -- "$current"); compopt -o filenames 2>/dev/null; return ;;
    @directory) mapfile -t COMPREPLY < <(compgen -d -- "$current"); compopt -o filenames 2>/dev/null; return ;;
    @text) return ;;
    ?*) mapfile -t COMPREPLY < <(compgen -W "$value" -- "$current"); return ;;
  esac
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [[ -n $files ]]; then
    local -a found
    mapfile -t found < <(compgen -\${files:0:1} -- "$current")
    COMPREPLY+=("\${found[@]}")
    compopt -o filenames 2>/dev/null
  fi
}
complete -F _holdfast holdfast
`
}

function zshScript(nodes: readonly Node[]): string {
  const functions = nodes.map((node) => {
    const children = childrenOf(node)
    const argument = argumentOf(node)
    const lines = flagsOf(node).map(({ long, takesValue, choices, sort, says }) => {
      const action = choices.length > 0 ? `(${choices.join(' ')})` : zshAction(sort)
      const value = takesValue ? `:value:${action}` : ''
      return `    '*${long}[${zshText(says)}]${value}' \\`
    })
    const described = children.map(({ name, summary }) => `'${name}:${zshText(summary)}'`)
    const rest =
      argument === undefined
        ? []
        : [
            `    '*:${argument.name}:${argument.choices ? `(${argument.choices.join(' ')})` : zshAction(argument.completes ?? 'text')}' \\`,
          ]
    const body =
      children.length === 0
        ? [`  _arguments \\`, ...lines, ...rest, '    && return']
        : [
            '  local state line',
            '  local -a commands',
            `  commands=(${described.join(' ')})`,
            '  _arguments -C \\',
            ...lines,
            "    '1:command:->command' '*::argument:->argument' && return",
            '  case $state in',
            "    command) _describe 'command' commands ;;",
            '    argument)',
            '      case $line[1] in',
            ...children.map(({ name }) => `        ${name}) ${zshName(`${node.path} ${name}`)} ;;`),
            '      esac ;;',
            '  esac',
          ]
    return `${zshName(node.path)}() {\n${body.join('\n')}\n}`
  })
  return `#compdef holdfast
# zsh completion of holdfast. Load it: source <(holdfast completion zsh), after compinit
${functions.join('\n')}
compdef _holdfast holdfast
`
}

function zshName(path: string): string {
  return `_${path.replaceAll(/[ -]/g, '_')}`
}

function zshAction(sort: Flag['sort']): string {
  if (sort === 'text') return ' '
  return sort === 'file' ? '_files' : '_files -/'
}

function zshText(text: string): string {
  return text.replaceAll(/['[\]:\\]/g, ' ').trim()
}

function fishScript(nodes: readonly Node[]): string {
  const lines = nodes.flatMap((node) => {
    const names = node.path.split(' ').slice(1)
    const here = `-n '__holdfast_at ${names.join(' ')}'`.replace(" '", " '").replace(" '-n", '-n')
    const children = childrenOf(node).map(
      ({ name, summary }) => `complete -c holdfast ${here} -f -a ${name} -d ${fishText(summary)}`,
    )
    const flags = flagsOf(node).map(({ long, takesValue, choices, sort, says }) => {
      const value = takesValue ? fishValue(choices, sort) : ''
      return `complete -c holdfast ${here} -l ${long.slice(2)}${value} -d ${fishText(says)}`
    })
    const argument = argumentOf(node)
    const files = argument?.completes === undefined ? [] : [`complete -c holdfast ${here} -F`]
    const choices =
      argument?.choices === undefined
        ? []
        : [`complete -c holdfast ${here} -f -a '${argument.choices.join(' ')}'`]
    return [...children, ...flags, ...files, ...choices]
  })
  const parents = nodes.filter((node) => childrenOf(node).length > 0)
  const steps = parents.flatMap((node) =>
    childrenOf(node).map(({ name }) => `'${node.path} ${name}'`),
  )
  return `# fish completion of holdfast. Load it: holdfast completion fish | source
complete -c holdfast -e
complete -c holdfast -f
function __holdfast_at
    set -l path holdfast
    set -l known ${steps.join(' ')}
    for word in (commandline -opc)[2..]
        if contains -- "$path $word" $known
            set path "$path $word"
        end
    end
    test "$path" = (string join ' ' holdfast $argv)
end
${lines.join('\n')}
`
}

function fishValue(choices: readonly string[], sort: Flag['sort']): string {
  if (choices.length > 0) return ` -x -a '${choices.join(' ')}'`
  if (sort === 'text') return ' -x'
  return sort === 'file' ? ' -r -F' : ` -x -a '(__fish_complete_directories)'`
}

function fishText(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
