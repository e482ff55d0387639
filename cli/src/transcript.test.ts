import assert from 'node:assert/strict'
import { test } from 'node:test'
import { consoleBlocks, matches, parseTranscript } from './transcript.ts'

test('a scenario has commands, what they print, exit codes and files', () => {
  const { steps, files } = parseTranscript(
    [
      '# told',
      '',
      '$ one \\',
      '  two',
      'out',
      '! err',
      '? 3',
      '',
      '$ three',
      '-- f --',
      'x',
      'y',
      '',
    ].join('\n'),
  )
  assert.deepEqual(steps, [
    { command: 'one \\\n  two', out: ['out'], err: ['err'], code: 3, line: 3 },
    { command: 'three', out: [], err: [], code: 0, line: 9 },
  ])
  assert.equal(files.get('f'), 'x\ny\n\n')
})

test('three dots stand for anything, everything else for itself', () => {
  assert.ok(matches(['a ... z'], 'a b c z\n'))
  assert.ok(matches(['a', '...', 'z'], 'a\nb\nc\nz\n'))
  assert.ok(matches(['a', '...', 'z'], 'a\nz\n'))
  assert.ok(matches([], ''))
  assert.ok(!matches(['a'], 'a\nb\n'))
  assert.ok(!matches(['a.c'], 'abc\n'))
  assert.ok(!matches(['a'], ''))
})

test('console blocks of a page are found with their lines', () => {
  const page = ['text', '```console', '$ a', 'b', '```', '```sh', '$ not this', '```'].join('\n')
  assert.deepEqual(consoleBlocks(page), [{ text: '$ a\nb', line: 3 }])
})
