import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parse } from './program.ts'
import { quickParse } from './quick-parse.ts'
import { sealCommands } from './seal-commands.ts'
import { commandTree } from './tree.ts'

const words = fc.array(
  fc.constantFrom(
    ...['--in', '--out', '--retry', '--json', '--timeout', '--share', '--holder-key', '--people'],
    ...['-', 'a=b', 'x.jwe', '5', '--help', '--nonsense', '-x', '--in=x', '--unattended'],
  ),
  { maxLength: 7 },
)
const names = fc.constantFrom('open', 'inspect', 'rehearse', 'seal', 'vault')

test('what the quick parser understands, the parser understands alike', async () => {
  let understood = 0
  await fc.assert(
    fc.asyncProperty(names, words, async (name, rest) => {
      const quick = quickParse(sealCommands, [name, ...rest])
      if (quick === undefined) return
      const full = await parse(commandTree, [name, ...rest], '0')
      assert.ok(quick.kind === 'run' && full.kind === 'run')
      assert.deepEqual(quick.path, full.path)
      assert.equal(quick.load, full.load)
      for (const option of ['in', 'out', 'timeout', 'state-dir', 'passphrase-file']) {
        assert.equal(quick.input.text(option), full.input.text(option), option)
      }
      for (const option of ['retry', 'json', 'unattended', 'people']) {
        assert.equal(quick.input.flag(option), full.input.flag(option), option)
        assert.equal(quick.input.has(option), full.input.has(option), option)
      }
      for (const option of ['share', 'holder-key']) {
        assert.deepEqual(quick.input.texts(option), full.input.texts(option), option)
      }
      understood += 1
    }),
    { numRuns: 3000 }, // it understands one in ten
  )
  assert.ok(understood > 100, `only ${understood} lines were understood`)
})
