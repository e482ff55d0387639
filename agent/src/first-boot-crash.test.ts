import assert from 'node:assert/strict'
import { cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeKeys } from './identity.ts'
import { runKilled } from './killed-child.ts'
import { openNodeDirectory } from './node-directory.ts'
import { isTokenOf, ServiceTokens, SigningKey } from './node-secrets.ts'

interface Ran {
  killed: boolean
  outcomes: { name: string; outcome: string; detail?: string }[]
}

/** Runs a first boot as a process of its own, killed after so many effects. */
async function boot(folder: string, killAt: number, renew = ''): Promise<Ran> {
  const args = [join(folder, 'node'), join(folder, 'vault'), renew]
  const { killed, text } = await runKilled('first-boot-child.ts', args, killAt)
  return { killed, outcomes: killed ? [] : JSON.parse(text) }
}

const brief = ({ outcomes }: Ran) => outcomes.map(({ name, outcome }) => `${name} ${outcome}`)
const allKept = [
  'identity kept',
  'tpm-binding absent',
  'signing-keys kept',
  'service-tokens kept',
  'canaries kept',
]

async function scratch(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-first-boot-'))
  await mkdir(join(path, 'vault'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

async function isWhole(folder: string): Promise<void> {
  await using node = await openNodeDirectory(join(folder, 'node'))
  const key = await new SigningKey(node.path, node.keys, node.keeping).read()
  assert.ok(key !== undefined)
  const tokens = new ServiceTokens(node.keys.node, () => 0)
  const vault = join(folder, 'vault')
  assert.deepEqual((await readdir(join(vault, 'holdfast/tokens'))).sort(), ['db', 'web'])
  for (const service of ['web', 'db']) {
    const token = await readFile(tokens.path(vault, service), 'utf8')
    assert.ok(isTokenOf(token, node.keys.node, service, key))
    assert.equal(isTokenOf(token, node.keys.node, 'other', key), false)
    assert.equal(isTokenOf(token, makeKeys().node, service, key), false)
    assert.equal(isTokenOf(token, node.keys.node, service, makeKeys().identity), false)
  }
}

test('a first boot killed after any of its effects converges when it is run again', async () => {
  let killed = true
  let killAt = 1
  for (; killed && killAt < 60; killAt += 1) {
    await using folder = await scratch()
    killed = (await boot(folder.path, killAt)).killed
    const again = await boot(folder.path, 0)
    assert.equal(again.outcomes.length, 5)
    await isWhole(folder.path)
    if (killAt % 5 === 0)
      assert.deepEqual(brief(await boot(folder.path, 0)), allKept, `kill ${killAt}`)
  }
  assert.ok(!killed && killAt > 10, `${killAt} effects`)
})

test('a renewal killed after any of its effects is done once in all, and then kept', async () => {
  await using first = await scratch()
  await boot(first.path, 0)
  const tokenOf = (folder: string) => readFile(join(folder, 'vault/holdfast/tokens/web'), 'utf8')
  const before = await tokenOf(first.path)
  let killed = true
  let killAt = 1
  for (; killed && killAt < 60; killAt += 1) {
    await using folder = await scratch()
    await cp(join(first.path, 'node'), join(folder.path, 'node'), {
      recursive: true,
      preserveTimestamps: true,
    })
    // Copied canaries are other files: that is a touch, which is not what is tried here.
    await rm(join(folder.path, 'node/canaries.json'))
    await cp(join(first.path, 'vault'), join(folder.path, 'vault'), { recursive: true })
    killed = (await boot(folder.path, killAt, 'order-1')).killed
    const again = await boot(folder.path, 0, 'order-1')
    assert.deepEqual(brief(again).slice(3), ['service-tokens renewed', 'canaries renewed'])
    const token = await tokenOf(folder.path)
    assert.notEqual(token, before)
    await boot(folder.path, 0, 'order-1')
    assert.equal(await tokenOf(folder.path), token, 'the same order renews once')
    await isWhole(folder.path)
  }
  assert.ok(!killed && killAt > 8, `${killAt} effects`)
})
