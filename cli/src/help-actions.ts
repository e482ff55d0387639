import type { CommandSpec, Context, Outcome } from './command.ts'
import { completionScript, shells } from './completion.ts'
import { exitCodes } from './exit-codes.ts'
import { cliFault } from './faults.ts'
import { exitCodeTable } from './help.ts'
import type { Input } from './input.ts'
import { parse } from './program.ts'

/** `holdfast completion` */
export async function completionAction(input: Input, context: Context): Promise<Outcome> {
  const shell = shells.find((name) => name === input.word(0))
  if (shell === undefined) throw cliFault('cli.usage', `the shells are ${shells.join(', ')}`)
  const script = completionScript(shell, await context.tree())
  return { json: { shell, script }, text: script }
}

/** `holdfast help` */
export async function helpAction(input: Input, context: Context): Promise<Outcome> {
  const words = input.words(0)
  if (words.length === 1 && words[0] === 'exit-codes') {
    return { json: exitCodes, text: exitCodeTable() }
  }
  const tree = await context.tree()
  requireCommand(words, tree)
  const request = await parse(tree, [...words, '--help'], context.settings.version)
  const text = request.kind === 'print' ? request.text : ''
  return { json: { command: ['holdfast', ...words].join(' '), help: text }, text }
}

function requireCommand(words: readonly string[], tree: CommandSpec): void {
  let here = tree
  for (const word of words) {
    const child = (here.children ?? []).find(({ name }) => name === word)
    if (child === undefined) {
      throw cliFault('cli.usage', `there is no command or topic "${words.join(' ')}"`, {
        hint: 'holdfast --help lists the commands; topics: exit-codes',
      })
    }
    here = child
  }
}
