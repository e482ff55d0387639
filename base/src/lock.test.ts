import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { lock } from './lock.ts'
import { run } from './run.ts'
import { startProgram } from './spawn.ts'

const locker = `
import { lock } from ${JSON.stringify(import.meta.resolve('./lock.ts'))}
await lock(process.argv[1], 'the thing')
console.log('locked')
setInterval(() => {}, 1000)
`

describe('lock', () => {
  let folder = ''
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-lock-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  function other(path: string) {
    const args = ['--input-type=module', '-e', locker, path]
    return startProgram(process.execPath, args, (line) => line === 'locked')
  }

  test('is held by one, named in the refusal, and free again when disposed of', async () => {
    const path = join(folder, 'one')
    {
      await using _held = await lock(path, 'the thing')
      await assert.rejects(lock(path, 'the thing'), {
        code: 'base.locked',
        kind: 'busy',
        message: `the thing is in use by process ${process.pid}`,
      })
    }
    const again = await lock(path, 'the thing')
    await again[Symbol.asyncDispose]()
    await again[Symbol.asyncDispose]()
  })

  test('keeps another process out until that process dies, then is free at once', async () => {
    const path = join(folder, 'two')
    const { running } = await other(path)
    await assert.rejects(lock(path, 'the thing'), {
      message: `the thing is in use by process ${running.pid}`,
    })
    running.kill('SIGKILL')
    await running.ended
    await using _held = await lock(path, 'the thing')
    assert.equal(await readFile(path, 'utf8'), `${process.pid}\n`)
  })

  test('of many who try at once exactly one gets it, whatever an earlier crash left', async () => {
    const path = join(folder, 'many')
    await writeFile(path, '999999999 77')
    const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lock(path, 'the thing')))
    const won = tries.filter((result) => result.status === 'fulfilled')
    assert.equal(won.length, 1)
    await won[0]?.value[Symbol.asyncDispose]()
  })

  test('is not inherited by the programs we run', async () => {
    const path = join(folder, 'children')
    const { stdout } = await run('ls', ['-l', '/proc/self/fd'])
    const held = await lock(path, 'the thing')
    const { stdout: later } = await run('ls', ['-l', '/proc/self/fd'])
    await held[Symbol.asyncDispose]()
    assert.equal(later.includes('children'), false)
    assert.equal(stdout.toString().split('\n').length, later.toString().split('\n').length)
  })

  test('a link in its place is refused and what it leads to is left alone', async () => {
    const [path, link] = [join(folder, 'precious'), join(folder, 'link.lock')]
    await writeFile(path, 'precious')
    await symlink(path, link)
    await assert.rejects(lock(link, 'a thing'), { code: 'base.file_unreadable' })
    assert.equal(await readFile(path, 'utf8'), 'precious')
  })

  test('a place that cannot hold a lock is a fault', async () => {
    await assert.rejects(lock(join(folder, 'no', 'such'), 'x'), { code: 'base.file_absent' })
  })
})
