import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'

// Every fault code is declared once, thrown somewhere, and explained in docs/operator/errors.md.
// Codes stay for ever, because scripts depend on them: one that goes must go from the page too.

const root = fileURLToPath(new URL('..', import.meta.url))
const sources = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*/src/*.ts'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && !path.endsWith('.test.ts'))
const tables = sources.filter((path) => path.endsWith('/faults.ts'))

/** The kinds of all fault codes, from every part's own table. */
async function declared(): Promise<Map<string, string>> {
  const kinds = new Map<string, string>()
  for (const path of tables) {
    const module: Record<string, unknown> = await import(pathToFileURL(join(root, path)).href)
    for (const maker of Object.values(module)) {
      if (typeof maker !== 'function' || !('codes' in maker)) continue
      for (const [code, kind] of Object.entries(maker.codes as object)) {
        assert.ok(!kinds.has(code), `${code} is declared twice`)
        assert.equal(code.split('.')[0], path.split('/')[0], `${code} is in ${path}`)
        kinds.set(code, kind)
      }
    }
  }
  return kinds
}

/** The rows of the page: code, kind, meaning, what to do. */
function explained(): string[][] {
  const page = readFileSync(join(root, 'docs/operator/errors.md'), 'utf8')
  const rows = page.match(/^\| `[a-z]+\.[a-z0-9_]+` \|.*\|$/gm) ?? []
  return rows.map((row) =>
    row
      .slice(1, -1)
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim().replace(/^`([a-z0-9._]+)`$/, '$1')),
  )
}

test('every part has its table of fault codes', async () => {
  assert.equal(tables.length, 7, tables.join(' '))
  const kinds = await declared()
  for (const path of tables) {
    const part = path.split('/')[0]
    assert.ok(
      [...kinds.keys()].some((code) => code.startsWith(`${part}.`)),
      `${path} declares no code`,
    )
  }
})

test('the page explains every fault code, with its kind, and no other', async () => {
  const kinds = await declared()
  const rows = explained()
  const shown = rows.map(([code = '', kind = '']) => `${code} ${kind}`)
  const expected = [...kinds].map(([code, kind]) => `${code} ${kind}`)
  assert.deepEqual(shown.toSorted(), expected.toSorted(), 'docs/operator/errors.md')
  for (const [code, , meaning = '', remedy = '', ...more] of rows) {
    assert.ok(meaning.length >= 15, `${code} has no meaning`)
    assert.ok(remedy.length >= 5, `${code} says nothing to do`)
    assert.equal(more.length, 0, `${code} has too many columns`)
  }
})

test('every fault code is thrown somewhere', async () => {
  const text = sources.map((path) => readFileSync(join(root, path), 'utf8')).join('\n')
  const idle = [...(await declared()).keys()].filter(
    (code) => text.split(`'${code}'`).length < 3, // its declaration is one of them
  )
  assert.deepEqual(idle, [], 'a code that nothing throws is an error that cannot happen')
})

test('faults are made by their part, so that no code escapes its table', () => {
  const made = sources.filter((path) =>
    /new Fault\(/.test(readFileSync(join(root, path), 'utf8').replace(/^\s*(\/\/|\*).*$/gm, '')),
  )
  assert.deepEqual(made.toSorted(), [
    'base/src/fault.ts',
    'keyserver/src/messages.ts', // a fault that came from another process, as it was
  ])
})
