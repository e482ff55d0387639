import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '@holdfast/base'
import { parse } from './program.ts'
import { commandTree } from './tree.ts'

const thumbprint = `-${'a'.repeat(42)}`
const other = `--${'b'.repeat(41)}`

async function inputOf(...words: string[]) {
  const request = await parse(commandTree, words, '0')
  assert.ok(request.kind === 'run')
  return request.input
}

test('a thumbprint that begins with a dash is an argument', async () => {
  const input = await inputOf('keyserver', 'retire', '--force', thumbprint, other, '--json')
  assert.deepEqual(input.words(0), [thumbprint, other])
  assert.ok(input.flag('force') && input.flag('json'))
})

test('so is an id that begins with one', async () => {
  const id = '-rfgkYzmZi2_6K48DRgVZg'
  const input = await inputOf('node', 'wait', id, '--json')
  assert.deepEqual(input.words(0), [id])
})

test('so is the beginning of an id, as tables and hints show it, and the words keep their order', async () => {
  for (const begin of ['-rfgkYzmZi2_', '-V_1', '-hab', '--kYzmZi2_6K', thumbprint]) {
    const input = await inputOf('--json', 'node', 'restart', begin, '--timeout', '9', 'web')
    assert.deepEqual([input.word(0), input.word(1)], [begin, 'web'])
    assert.equal(input.text('timeout'), '9')
    assert.ok(input.flag('json'))
    assert.equal((await inputOf('doctor', 'node', '--quick', begin)).word(0), begin)
  }
})

test('an option with one dash is a mistake, also where an id may stand', async () => {
  for (const words of [
    ['node', 'show', 'node-1', '-json'],
    ['vault', 'list', '-clevis', 'x.img'],
    ['node', 'show', '--frobnicate'],
  ]) {
    await assert.rejects(inputOf(...words), /unknown option/)
  }
})

test('as the value of an option it stays there', async () => {
  const input = await inputOf('vault', 'rekey', '/dev/sdb1', '--affected', thumbprint)
  assert.deepEqual(input.texts('affected'), [thumbprint])
  assert.deepEqual(input.words(0), ['/dev/sdb1'])
})

test('an unknown option is still a mistake, with the command to read about it', async () => {
  await assert.rejects(inputOf('keyserver', 'retire', '--no-such'), (error) => {
    assert.ok(isFault(error, 'cli.usage'))
    assert.equal(error.hint, 'holdfast keyserver retire --help')
    return true
  })
})
