import assert from 'node:assert/strict'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from '@holdfast/base'

// The launcher in a checkout of its own, where bundle and sources are told apart by what they print.

const own = fileURLToPath(new URL('..', import.meta.url))
const notShipped = ['test', 'bench', 'tools']
let root = ''
let parts: string[] = []

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'hf-launch-'))
  const workspace = JSON.parse(await readFile(join(own, '../package.json'), 'utf8'))
  parts = workspace.workspaces.filter((part: string) => !notShipped.includes(part))
  for (const part of parts) {
    await mkdir(join(root, part, 'src'), { recursive: true })
    await writeFile(join(root, part, 'src/index.ts'), '')
  }
  await cp(join(own, 'bin'), join(root, 'cli/bin'), { recursive: true })
  await writeFile(join(root, 'cli/package.json'), '{"type":"module"}')
  const words = 'process.argv.slice(2).join(" ")'
  await writeFile(
    join(root, 'cli/src/main.ts'),
    `const from: string = 'source'\nconsole.log(from, ${words})\n`,
  )
  await mkdir(join(root, 'node_modules/node-linux-test/bin'), { recursive: true })
  await symlink(process.execPath, join(root, 'node_modules/node-linux-test/bin/node'))
})
after(async () => {
  await rm(root, { recursive: true, force: true })
})

/** Seconds, by which files are newer than others however long the test takes. */
const hour = 3600

async function launch(program: string, ...words: string[]) {
  const result = await run(program, words, {
    accept: [0, 7],
    environment: { PATH: '/usr/bin:/bin' },
  })
  return { code: result.code, out: result.stdout.toString('utf8').trim(), err: result.stderr }
}

test('without a bundle the sources run, on the pinned Node', async () => {
  const { out } = await launch(join(root, 'cli/bin/holdfast'), 'a', 'b c')
  assert.equal(out, 'source a b c')
})

test('a bundle that is newer than the sources runs', async () => {
  await mkdir(join(root, 'cli/dist'), { recursive: true })
  await writeFile(join(root, 'cli/dist/holdfast.mjs'), "console.log('bundle')")
  await later(join(root, 'cli/dist/holdfast.mjs'), hour)
  assert.equal((await launch(join(root, 'cli/bin/holdfast'))).out, 'bundle')
})

test('a bundle that is older than a source of any part does not', async () => {
  for (const part of parts) {
    await later(join(root, part, 'src/index.ts'), 2 * hour)
    assert.equal((await launch(join(root, 'cli/bin/holdfast'))).out, 'source', part)
    await later(join(root, part, 'src/index.ts'), -hour)
  }
  await later(join(root, 'seal/src/index.ts'), 2 * hour)
})

test('a link to it is followed, as npm makes one', async () => {
  await symlink(join(root, 'cli/bin/holdfast'), join(root, 'linked'))
  assert.equal((await launch(join(root, 'linked'))).out, 'source')
})

test('an old Node is told apart and what to do is said', async () => {
  const text = await readFile(join(root, 'cli/bin/holdfast.mjs'), 'utf8')
  const old = text.replace('process.versions.node.split', "'20.19.2'.split")
  await writeFile(join(root, 'cli/bin/old.mjs'), old)
  const { code, err } = await launch(process.execPath, join(root, 'cli/bin/old.mjs'))
  assert.equal(code, 7)
  assert.match(err, /^error: holdfast runs on Node 24, .*\nhint: start .*cli\/bin\/holdfast/)
})

/** Moves a file's time on by some seconds. */
async function later(path: string, seconds: number): Promise<void> {
  const time = new Date(Date.now() + seconds * 1000)
  await utimes(path, time, time)
}
