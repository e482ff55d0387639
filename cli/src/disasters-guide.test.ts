import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { describe, it } from 'node:test'
import { drills } from '@holdfast/drills'
import { parse } from './program.ts'
import { commandTree } from './tree.ts'

// The disasters guide is read when things are bad: what it says to type must be a command.

const guide = await readFile(new URL('../../docs/operator/disasters.md', import.meta.url), 'utf8')

/** Every command of the guide: indented lines, and code in sentences. */
function commands(): string[] {
  const lines = guide.match(/^ {4,}holdfast .*$/gm) ?? []
  const spans = [...guide.matchAll(/`(holdfast [^`]+)`/g)].flatMap(([, text]) => text ?? [])
  return [...lines, ...spans].map((line) => line.trim().replaceAll(/\s+/g, ' '))
}

/** The words of a shell line without quotes; what comes after a redirection is not the command's. */
function wordsOf(command: string): string[] {
  const [own = ''] = command.split(' > ')
  return (own.match(/"[^"]*"|\S+/g) ?? []).slice(1).map((word) => word.replaceAll('"', ''))
}

describe('the disasters guide', () => {
  it('has a section for every drill, in the same order', () => {
    const sections = [...guide.matchAll(/^## (\S+)$/gm)].map(([, name]) => name)
    assert.deepEqual(
      sections,
      drills.map(({ name }) => name),
    )
  })

  it('says in every section what is proven', () => {
    for (const section of guide.split(/^## /m).slice(1)) assert.match(section, /^\*Proven:\*/m)
  })

  it('names only commands and options that exist', async () => {
    const found = commands()
    assert.ok(found.length > 40, `only ${found.length} commands were found`)
    for (const command of found) {
      const words = wordsOf(command)
      // A command named in a sentence stands without what it needs; its help has to be there.
      const isName = words.every((word) => /^[a-z][a-z-]*$/.test(word))
      const { kind } = await parse(commandTree, isName ? [...words, '--help'] : words, '0')
      assert.equal(kind, isName ? 'print' : 'run', command)
    }
  })
})
