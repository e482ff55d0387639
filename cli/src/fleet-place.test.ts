import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { takePlace } from './fleet-place.ts'

test('a fleet does not start where others may replace its folder or its lock', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-place-'))
  try {
    const [open, precious] = [join(folder, 'open'), join(folder, 'precious')]
    await mkdir(join(open, 'inside'), { recursive: true })
    await writeFile(precious, 'precious')
    await symlink(precious, join(open, 'inside', 'fleet.lock'))
    const place = join(open, 'inside', 'fleet')
    await assert.rejects(takePlace(place), { code: 'base.file_unreadable' })
    await chmod(open, 0o777)
    await assert.rejects(takePlace(place), { code: 'cli.directory_unsafe' })
    assert.equal(await readFile(precious, 'utf8'), 'precious')
    await chmod(open, 0o755)
    await rm(join(open, 'inside', 'fleet.lock'))
    await using _ = await takePlace(place)
  } finally {
    await rm(folder, { recursive: true })
  }
})
