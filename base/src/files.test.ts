import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import { baseFault } from './faults.ts'
import {
  appendDurable,
  ensureDirectory,
  listDirectory,
  readBounded,
  readIfPresent,
  removeDurable,
  renameDurable,
  shredDurable,
  writeDurable,
} from './files.ts'
import { run } from './run.ts'

describe('durable files', () => {
  let folder = ''
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-files-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  test('a write replaces the whole file and leaves nothing else', async () => {
    const path = join(folder, 'whole')
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), async (bytes) => {
        await writeDurable(path, bytes)
        assert.deepEqual(await readBounded(path, 5000), Buffer.from(bytes))
      }),
      { numRuns: 30 },
    )
    assert.deepEqual(await readdir(folder), ['whole'])
  })

  test('a write has the asked-for mode whatever the umask, 0600 by default', async () => {
    const path = join(folder, 'mode')
    await writeDurable(path, 'x')
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    await writeDurable(path, 'x', { mode: 0o666 })
    assert.equal((await stat(path)).mode & 0o777, 0o666)
  })

  test('a reader never sees a mixture while a writer replaces the file', async () => {
    const path = join(folder, 'mixture')
    const texts = ['a', 'b'].map((letter) => letter.repeat(100_000))
    await writeDurable(path, texts[0] ?? '')
    const writing = (async () => {
      for (let turn = 0; turn < 20; turn += 1) await writeDurable(path, texts[turn % 2] ?? '')
    })()
    for (let turn = 0; turn < 40; turn += 1) {
      assert.ok(texts.includes((await readBounded(path, 200_000)).toString()))
    }
    await writing
  })

  test('a write that fails leaves the old file and no temporary one', async () => {
    const path = join(folder, 'taken')
    await mkdir(join(path, 'inside'), { recursive: true }) // a directory cannot be replaced by a file
    await assert.rejects(writeDurable(path, 'x'), { code: 'base.file_unreadable' })
    assert.deepEqual(await readdir(path), ['inside'])
    assert.ok((await readdir(folder)).every((name) => !name.startsWith('.tmp-')))
  })

  test('parts are written as they come, and take the name only when all have come', async () => {
    const path = join(folder, 'parts')
    await writeDurable(path, 'before')
    async function* parts(fails: boolean) {
      yield 'one '
      assert.equal(await readFile(path, 'utf8'), 'before')
      if (fails) throw baseFault('base.bad_json', 'the source failed')
      yield Buffer.from('two')
    }
    await assert.rejects(writeDurable(path, parts(true)), { code: 'base.bad_json' })
    assert.equal(await readFile(path, 'utf8'), 'before')
    await writeDurable(path, parts(false))
    assert.equal(await readFile(path, 'utf8'), 'one two')
    assert.ok((await readdir(folder)).every((name) => !name.startsWith('.tmp-')))
  })

  test('what a crash left behind is neither listed nor read', async () => {
    const inside = join(folder, 'crashed')
    await ensureDirectory(inside)
    await writeFile(join(inside, '.tmp-record-0123456789ab'), 'half a rec')
    await writeDurable(join(inside, 'record'), 'whole')
    assert.deepEqual(await listDirectory(inside), ['record'])
    assert.deepEqual(await listDirectory(join(inside, 'absent')), [])
  })

  test('a directory with a short relative name is made', async () => {
    const module = JSON.stringify(new URL('./files.ts', import.meta.url).href)
    const script = `const { ensureDirectory } = await import(${module}); await ensureDirectory('a')`
    const words = ['--input-type=module', '--eval', script]
    await run(process.execPath, words, { cwd: folder, timeout: 20_000 })
    assert.equal((await stat(join(folder, 'a'))).isDirectory(), true)
  })

  test('every effect is announced once it is done, in order', async () => {
    const seen: unknown[] = []
    const listen = (effect: unknown) => seen.push(effect)
    subscribe('holdfast:effect', listen)
    const [path, other] = [join(folder, 'announced'), join(folder, 'renamed')]
    try {
      await writeDurable(path, 'x')
      await appendDurable(path, 'y')
      await renameDurable(path, other)
      await removeDurable(other)
      assert.equal(await removeDurable(other), false)
      await run('true', [])
    } finally {
      unsubscribe('holdfast:effect', listen)
    }
    assert.deepEqual(seen, [
      { kind: 'write', what: path },
      { kind: 'append', what: path },
      { kind: 'rename', what: other },
      { kind: 'remove', what: other },
      { kind: 'run', what: 'true' },
    ])
  })

  test('appending keeps what is there', async () => {
    const path = join(folder, 'log')
    for (const line of ['one\n', 'two\n', 'three\n']) await appendDurable(path, line)
    assert.equal(await readFile(path, 'utf8'), 'one\ntwo\nthree\n')
  })

  test('reading is bounded, on files with and without a size', async () => {
    const path = join(folder, 'large')
    await writeFile(path, Buffer.alloc(10_000, 7))
    assert.equal((await readBounded(path, 10_000)).length, 10_000)
    await assert.rejects(readBounded(path, 9_999), { code: 'base.file_too_large' })
    await assert.rejects(readBounded('/dev/zero', 100_000), { code: 'base.file_too_large' })
    assert.match((await readBounded('/proc/self/status', 65_536)).toString(), /^Name:/)
  })

  test('what cannot be read is a fault that names it', async () => {
    const absent = join(folder, 'absent')
    assert.equal(await readIfPresent(absent, 10), undefined)
    await assert.rejects(readBounded(absent, 10), { code: 'base.file_absent', kind: 'absent' })
    await assert.rejects(readBounded(folder, 10), { code: 'base.file_unreadable' })
    await assert.rejects(readIfPresent(folder, 10), { code: 'base.file_unreadable' })
    await assert.rejects(appendDurable(join(absent, 'x'), 'x'), { code: 'base.file_absent' })
    await assert.rejects(renameDurable(absent, `${absent}2`), { code: 'base.file_absent' })
    await writeFile(join(folder, 'file'), '')
    await assert.rejects(listDirectory(join(folder, 'file')), { code: 'base.file_unreadable' })
    await assert.rejects(ensureDirectory(join(folder, 'file', 'x')), {
      code: 'base.file_unreadable',
    })
  })

  test('shredding a link takes the link away and leaves what it leads to', async () => {
    const [path, link] = [join(folder, 'precious'), join(folder, 'link')]
    await writeFile(path, 'precious')
    await symlink(path, link)
    assert.equal(await shredDurable(link), true)
    assert.equal(await readFile(path, 'utf8'), 'precious')
    await assert.rejects(lstat(link))
  })

  test('shredding overwrites the blocks before the name goes', async () => {
    const path = join(folder, 'key')
    const secret = Buffer.alloc(3_000_000, 'secret')
    await writeFile(path, secret)
    await chmod(path, 0o600)
    const handle = await (await import('node:fs/promises')).open(path, 'r')
    try {
      assert.equal(await shredDurable(path), true)
      const left = await handle.readFile() // the blocks of the removed file
      assert.equal(left.length, secret.length)
      assert.equal(left.includes('secretsecret'), false)
    } finally {
      await handle.close()
    }
    assert.equal(await shredDurable(path), false)
  })
})
