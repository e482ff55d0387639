import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { folderOfOthers, othersMayReplace } from './ownership.ts'

test('a folder is ours when it is, or root’s, and others may not write it or it is sticky', () => {
  const cases: [uid: number, mode: number, others: boolean][] = [
    [1000, 0o40700, false],
    [0, 0o40755, false],
    [0, 0o41777, false],
    [1001, 0o40700, true],
    [1000, 0o40770, true],
    [0, 0o40777, true],
  ]
  for (const [uid, mode, others] of cases) {
    assert.equal(othersMayReplace({ uid, mode }, 1000), others, `${uid} ${mode.toString(8)}`)
  }
})

test('every folder on the way counts, behind a link too', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-ownership-'))
  try {
    const [weak, inside, link] = [join(folder, 'w'), join(folder, 'w', 'inside'), join(folder, 'l')]
    await mkdir(inside, { recursive: true, mode: 0o700 })
    await symlink(inside, link)
    assert.equal(await folderOfOthers(link), undefined)
    await chmod(weak, 0o777)
    assert.equal(await folderOfOthers(inside), weak)
    assert.equal(await folderOfOthers(link), weak)
    await assert.rejects(folderOfOthers(join(folder, 'none')), { code: 'base.file_absent' })
  } finally {
    await rm(folder, { recursive: true })
  }
})
