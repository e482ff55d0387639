import assert from 'node:assert/strict'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Canaries, judge, type Mark } from './canaries.ts'

const nodeCanary = 'backup/recovery-keys.pem'
const vaultCanary = 'backup/service-passwords.kdbx'

async function bench() {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-canary-'))
  const [directory, vault] = [join(folder, 'node'), join(folder, 'vault')]
  await mkdir(directory)
  await mkdir(vault)
  const touched: string[] = []
  const open = () =>
    new Canaries(directory, (touch, path) => {
      touched.push(`${touch} ${path.slice(folder.length + 1)}`)
    })
  return {
    folder,
    directory,
    vault,
    touched,
    open,
    /** What the next looks of a new agent tell. */
    look: async (mounted = true) => {
      touched.length = 0
      await open().look(mounted ? vault : undefined)
      await open().look(mounted ? vault : undefined)
      return [...touched]
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

test('reading, changing, replacing or removing a canary is told once', async () => {
  await using lab = await bench()
  await lab.open().make(lab.vault, false)
  assert.deepEqual(await lab.look(), [])
  const node = join(lab.directory, nodeCanary)
  const vault = join(lab.vault, vaultCanary)
  assert.match(await lab.open().describe(), /node: changes, removal and reading/)
  await readFile(node)
  assert.deepEqual(await lab.look(), [`read node/${nodeCanary}`])
  await readFile(node) // and again
  assert.deepEqual(await lab.look(), [`read node/${nodeCanary}`])
  await chmod(vault, 0o644)
  assert.deepEqual(await lab.look(), [`changed vault/${vaultCanary}`])
  // A thief who puts back every time that a program can put back.
  await readFile(vault)
  await utimes(vault, 0, 0)
  assert.deepEqual(await lab.look(), [`changed vault/${vaultCanary}`])
  await copyFile(node, `${node}.copy`)
  await rename(`${node}.copy`, node)
  assert.deepEqual(await lab.look(), [`changed node/${nodeCanary}`])
  await rm(node)
  assert.deepEqual(await lab.look(), [`removed node/${nodeCanary}`])
  assert.equal(await lab.open().stand(lab.vault), false)
  await lab.open().make(lab.vault, false)
  assert.equal(await lab.open().stand(lab.vault), true)
  assert.deepEqual(await lab.look(), [])
})

test('a canary in a closed vault is out of sight, not touched', async () => {
  await using lab = await bench()
  await lab.open().make(lab.vault, false)
  await rename(lab.vault, `${lab.vault}.closed`)
  assert.deepEqual(await lab.look(false), [])
  assert.equal(await lab.open().stand(undefined), true)
  // What happened meanwhile is seen when it is open again.
  await readFile(join(`${lab.vault}.closed`, vaultCanary))
  await rename(`${lab.vault}.closed`, lab.vault)
  assert.deepEqual(await lab.look(), [`read vault/${vaultCanary}`])
})

test('nothing is judged from contents, and an entry that is the same is no touch', () => {
  const mark: Mark = { inode: '1', size: '2', modified: '3', changed: '4', accessed: '5' }
  assert.equal(judge(mark, { ...mark }), undefined)
  assert.equal(judge(mark, undefined), 'removed')
  assert.equal(judge(mark, { ...mark, accessed: '6' }), 'read')
  for (const member of ['inode', 'size', 'modified', 'changed'] as const)
    assert.equal(judge(mark, { ...mark, [member]: '9' }), 'changed', member)
})
