import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

// The index of the decisions names each of them with its number and its title, and nothing else.

const folder = join(import.meta.dirname, '../docs/decisions')

test('the index of the decisions is the folder', () => {
  const pages = readdirSync(folder).filter((name) => name !== 'README.md')
  const expected = pages.sort().map((name) => {
    const [head = ''] = readFileSync(join(folder, name), 'utf8').split('\n')
    const [, number = '', title = ''] = /^# (\d+)\. (.+)$/.exec(head) ?? []
    assert.equal(name.slice(0, 4), number.padStart(4, '0'), `${name}: ${head}`)
    return `| ${number} | [${title}](${name}) |`
  })
  assert.ok(expected.length > 0)
  const rows = readFileSync(join(folder, 'README.md'), 'utf8')
    .split('\n')
    .filter((line) => /^\| \d/.test(line))
    .map((line) => line.split('|').slice(0, 3).join('|').concat('|'))
  assert.deepEqual(rows, expected)
})
