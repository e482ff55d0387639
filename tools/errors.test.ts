import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'

// Every fault code is declared once, thrown somewhere, and explained in docs/operator/errors.md.
// Codes stay for ever, because scripts depend on them: one that goes must go from the page too.
// A part's own codes are in its faults.ts and begin with its name; a larger part may keep those of
// one subject in SUBJECT-faults.ts, and their first word then belongs to that table alone.

const root = fileURLToPath(new URL('..', import.meta.url))
const sources = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*/src/*.ts'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && !path.endsWith('.test.ts'))
const tables = sources.filter((path) => /[/-]faults\.ts$/.test(path))
const parts = [...new Set(sources.map((path) => partOf(path)))]
/** Tools of the tree; and `protocol`, which only has schemas, and meets no errors of its own. */
const withoutFaults = ['bench', 'protocol', 'test', 'tools']

function partOf(path: string): string {
  return path.split('/')[0] ?? ''
}

/** The kinds of all fault codes, from every part's own tables. */
async function declared(): Promise<Map<string, string>> {
  const kinds = new Map<string, string>()
  const owners = new Map<string, string>()
  for (const path of tables) {
    const module: Record<string, unknown> = await import(pathToFileURL(join(root, path)).href)
    for (const maker of Object.values(module)) {
      if (typeof maker !== 'function' || !('codes' in maker)) continue
      for (const [code, kind] of Object.entries(maker.codes as object)) {
        assert.ok(!kinds.has(code), `${code} is declared twice`)
        const word = code.split('.')[0] ?? ''
        const own = `${word}/src/faults.ts`
        if (path.endsWith('/faults.ts') || parts.includes(word))
          assert.equal(path, own, `${code} is in ${path}`)
        assert.equal(owners.get(word) ?? path, path, `${code} is in ${path}`)
        owners.set(word, path)
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

test('every part has its table of fault codes, and every table has codes', async () => {
  const owners = tables.filter((path) => path.endsWith('/faults.ts')).map((path) => partOf(path))
  const expected = parts.filter((part) => !withoutFaults.includes(part))
  assert.deepEqual(owners.toSorted(), expected.toSorted())
  const kinds = await declared()
  for (const path of tables) {
    const codes =
      readFileSync(join(root, path), 'utf8').match(/(?<=^ {2}')[a-z]+\.[a-z0-9_]+/gm) ?? []
    assert.ok(codes.length > 0, `${path} declares no code`)
    for (const code of codes) assert.ok(kinds.has(code), `${path} does not export ${code}`)
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
  // As the code of a fault, or of an enrolment, which fails without anybody there to catch it; a
  // word in the audit log, where actions look like codes, is neither.
  const idle = [...(await declared()).keys()].filter((code) => {
    const quoted = `'${code.replace('.', '\\.')}'`
    return !new RegExp(`Fault\\([^,()]*${quoted}|failEnrolment\\([^'()]*${quoted}`).test(text)
  })
  assert.deepEqual(idle, [], 'a code that nothing throws is an error that cannot happen')
})

test('faults are made by their part, so that no code escapes its table', () => {
  const made = sources.filter((path) =>
    /new Fault\(/.test(readFileSync(join(root, path), 'utf8').replace(/^\s*(\/\/|\*).*$/gm, '')),
  )
  assert.deepEqual(made.toSorted(), [
    'base/src/fault.ts',
    'cli/src/node-failure.ts', // a fault that came from a node, as it was
    'keyserver/src/messages.ts', // a fault that came from another process, as it was
    'link/src/api-client.ts', // a fault that came from the coordinator, as it was
  ])
})
