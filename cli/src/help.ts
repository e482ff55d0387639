import type { CommandSpec } from './command.ts'
import { exitCodeOfKind, exitCodes } from './exit-codes.ts'

/** What follows the options in `--help`: examples, exit codes of note, see also. */
export function helpSections(spec: CommandSpec, path: readonly string[]): string {
  const sections = [examplesOf(spec), exitsOf(spec), seeAlso(spec, path)]
  return sections
    .filter((section) => section !== '')
    .join('\n')
    .trimEnd()
}

function examplesOf(spec: CommandSpec): string {
  const lines = spec.examples.map(({ says, run }) => {
    const command = run
      .split('\n')
      .map((line) => `    ${line}`)
      .join('\n')
    return `  ${says}:\n${command}\n`
  })
  return `\nExamples:\n${lines.join('\n')}`
}

function exitsOf(spec: CommandSpec): string {
  if (spec.load === undefined) return ''
  if (spec.codes !== undefined) {
    const own = Object.entries(spec.codes).map(([code, says]) => `  ${code.padEnd(4)}${says}\n`)
    return `Exit codes:\n${own.join('')}  others: holdfast help exit-codes\n`
  }
  const rows = Object.entries(spec.exits ?? {}).map(([kind, meaning]) => {
    const code = exitCodeOfKind(kind as keyof NonNullable<CommandSpec['exits']>) // its own keys
    return `  ${String(code).padEnd(4)}${meaning}\n`
  })
  return `Exit codes:\n  0   done\n${rows.join('')}  others: holdfast help exit-codes\n`
}

function seeAlso(spec: CommandSpec, path: readonly string[]): string {
  const children = (spec.children ?? []).map(({ name }) => [...path, name].join(' '))
  const names = [...(spec.related ?? []), ...children.slice(0, 1)]
  if (names.length === 0) return ''
  return `See also: ${names.map((name) => `holdfast ${name} --help`).join(', ')}\n`
}

/** The text of `holdfast help exit-codes`. */
export function exitCodeTable(): string {
  const rows = exitCodes.map(
    ({ code, name, meaning }) => `${String(code).padStart(4)}  ${name.padEnd(12)}${meaning}`,
  )
  return ['code  name        meaning', ...rows].join('\n')
}
