import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openNodeDirectory } from './node-directory.ts'
import { inspectNodeDirectory } from './node-inspection.ts'

async function withDirectory(work: (path: string) => Promise<void>): Promise<void> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-inspect-'))
  try {
    await work(path)
  } finally {
    await rm(path, { recursive: true, force: true })
  }
}

test('an empty directory is no node, and stays empty', () =>
  withDirectory(async (path) => {
    const { keys, copies, running, state } = await inspectNodeDirectory(path)
    assert.deepEqual([keys, running, state], ['absent', false, undefined])
    assert.deepEqual(copies, [{ name: 'boot-state.a' }, { name: 'boot-state.b' }])
    assert.deepEqual(await readdir(path), [])
    assert.equal((await inspectNodeDirectory(join(path, 'nowhere'))).keys, 'absent')
  }))

test('a directory is read while its agent holds it, and after', () =>
  withDirectory(async (path) => {
    {
      await using held = await openNodeDirectory(path)
      const found = await inspectNodeDirectory(path)
      assert.deepEqual([found.keys, found.running], ['present', true])
      assert.equal(found.node, held.keys.node)
      assert.equal(found.state?.phase, 'factory')
      assert.deepEqual(
        found.copies.map(({ version }) => version),
        [1, 1],
      )
    }
    assert.equal((await inspectNodeDirectory(path)).running, false)
  }))

test('a damaged copy is named and left as it is', () =>
  withDirectory(async (path) => {
    await (await openNodeDirectory(path))[Symbol.asyncDispose]()
    const file = join(path, 'boot-state.b')
    await writeFile(file, '{}')
    const { copies, state } = await inspectNodeDirectory(path)
    assert.equal(copies[0]?.version, 1)
    assert.equal(copies[1]?.version, undefined)
    assert.notEqual(copies[1]?.problem, undefined)
    assert.equal(state?.phase, 'factory')
    assert.equal(await readFile(file, 'utf8'), '{}')
  }))

test('without its keys a node is told from a new machine', () =>
  withDirectory(async (path) => {
    await (await openNodeDirectory(path))[Symbol.asyncDispose]()
    await writeFile(join(path, 'keys.json'), '{"torn')
    assert.equal((await inspectNodeDirectory(path)).keys, 'damaged')
    await writeFile(join(path, 'keys.json'), 'sealed')
    assert.equal((await inspectNodeDirectory(path)).keys, 'elsewhere')
    await rm(join(path, 'keys.json'))
    const { keys, copies } = await inspectNodeDirectory(path)
    assert.equal(keys, 'absent')
    assert.ok(copies.every(({ problem }) => problem !== undefined))
  }))
