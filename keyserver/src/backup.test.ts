import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { freePort, isFault, messageOf, run, Secret } from '@holdfast/base'
import { createPins, type Policy, parsePolicy, seal } from '@holdfast/seal'
import fc from 'fast-check'
import { backup, openBackup } from './backup.ts'
import { readDirectory } from './directory.ts'
import { listKeys } from './inventory.ts'
import { makeKey, writeKey } from './key.ts'
import { addPrefix, markCompromised, revokePrefix } from './prefix.ts'
import { restore } from './restore.ts'
import { retire } from './retire.ts'
import { initialise, rotate } from './rotate.ts'
import { serve } from './serve.ts'
import { scratch, silentLog } from './server-fixture.ts'

const passphrase = 'correct horse battery staple'
const pins = createPins({ passphrase: () => Promise.resolve(Secret.copy(passphrase)) })
const policy = parsePolicy('passphrase', { name: 'backup' })

/** A directory with a past: a rotation, two prefixes, a revoked one, a mark. */
async function directoryWithPast() {
  const directory = await scratch()
  const path = join(directory.path, 'keys')
  await mkdir(path, { mode: 0o700 })
  await initialise(path, { curve: 'P-256' })
  const [first] = (await readDirectory(path)).keys
  await markCompromised(path, [first?.kid ?? ''], 'seen', 5)
  await rotate(path, { curve: 'P-521' })
  await addPrefix(path, 'site-1')
  await addPrefix(path, 'site-2')
  await revokePrefix(path, 'site-2')
  return { directory, path, output: join(directory.path, 'backup.jwe') }
}

const refuses = (code: string) => (error: unknown) => isFault(error, code)
const back = async (path: string, output: string) => {
  await backup({ directory: path, policy, pins, output }, 1_000)
  return await readFile(output, 'utf8')
}

test('a restored directory is the one backed up: hidden keys, prefixes, marks and order', async () => {
  const { directory, path, output } = await directoryWithPast()
  await using _ = directory
  const sealed = await back(path, output)
  assert.equal((await stat(output)).mode & 0o777, 0o600)
  const target = join(directory.path, 'restored')
  const result = await restore({ directory: target, pins, sealed })
  const [before, after] = [await readDirectory(path), await readDirectory(target)]
  assert.deepEqual(
    after.keys.map(({ file, kid }) => [file, kid]),
    before.keys.map(({ file, kid }) => [file, kid]),
  )
  assert.deepEqual([...result.proven].sort(), before.keys.map(({ kid }) => kid).sort())
  const [old, fresh] = [await listKeys(path), await listKeys(target)]
  const facts = (list: typeof old) =>
    list.keys.map(({ kid, state, since, compromised }) => [kid, state, since, compromised])
  assert.deepEqual(facts(fresh), facts(old))
  for (const { file } of before.keys) {
    const [a, b] = await Promise.all([path, target].map((folder) => readFile(join(folder, file))))
    assert.ok(a?.equals(b ?? Buffer.of()))
  }
})

test('a backup without the key that was expected writes nothing', async () => {
  const { directory, path, output } = await directoryWithPast()
  await using _ = directory
  const sealed = await back(path, output)
  const target = join(directory.path, 'restored')
  const { keys } = await readDirectory(path)
  const expect = keys.map(({ kid }) => kid)
  const foreign = { directory: target, pins, sealed, expect: [...expect, 'A'.repeat(43)] }
  await assert.rejects(restore(foreign), refuses('keyserver.backup_foreign'))
  await assert.rejects(readdir(target), { code: 'ENOENT' })
  const { restored } = await restore({ directory: target, pins, sealed, expect })
  assert.equal(restored.length, expect.length)
})

test('after the disk is lost, real clevis opens what it had bound, hidden key and prefix included', async () => {
  await using directory = await scratch()
  const keys = join(directory.path, 'keys')
  const options = { directory: keys, log: silentLog }
  const bound: string[] = []
  const port = await freePort() // the second server must get it too
  {
    await using server = await serve({ ...options, port, initialise: { curve: 'P-521' } })
    await server.administration.addPrefix('web')
    const bind = async (path: string) => {
      const { stdout: thp } = await run('tang-show-keys', [String(port)])
      const config = { url: `http://127.0.0.1:${port}${path}`, thp: thp.toString().trim() }
      const words = ['encrypt', 'tang', JSON.stringify(config)]
      bound.push((await run('clevis', words, { input: 'x' })).stdout.toString())
    }
    await bind('')
    await bind('/p/web')
    await server.administration.rotate()
    await bind('')
    await back(keys, join(directory.path, 'b'))
  }
  await rm(keys, { recursive: true })
  const sealed = await readFile(join(directory.path, 'b'), 'utf8')
  await restore({ directory: keys, pins, sealed })
  await using _ = await serve({ ...options, port })
  for (const jwe of bound) {
    assert.equal((await run('clevis', ['decrypt'], { input: jwe })).stdout.toString(), 'x')
  }
})

test('two of three holders open a backup, one does not', async () => {
  const { directory, path, output } = await directoryWithPast()
  await using _ = directory
  const holders = ['ada', 'ben', 'eve'].map((name) => {
    const pair = generateKeyPairSync('x25519')
    return {
      name,
      key: pair.publicKey.export({ type: 'spki', format: 'pem' }),
      own: pair.privateKey,
    }
  })
  const people = holders.map(({ name, key }) => ({ name, key }))
  const shared: Policy = parsePolicy('sss', { t: 2, pins: { person: people } })
  await backup({ directory: path, policy: shared, pins, output }, 1_000)
  const sealed = await readFile(output, 'utf8')
  const withHolders = (names: readonly string[]) =>
    createPins({
      holders: {
        answer: async ({ name }) => {
          const holder = holders.find((each) => each.name === name && names.includes(name))
          return holder === undefined ? undefined : { privateKey: holder.own }
        },
      },
    })
  const target = join(directory.path, 'restored')
  await assert.rejects(
    restore({ directory: target, pins: withHolders(['ada']), sealed }),
    refuses('seal.threshold_not_met'),
  )
  await assert.rejects(stat(target), 'nothing is written before the backup is open')
  const { proven } = await restore({ directory: target, pins: withHolders(['ada', 'eve']), sealed })
  assert.equal(proven.length, 5)
})

test('a directory with other keys is refused unless merging was asked for', async () => {
  const { directory, path, output } = await directoryWithPast()
  await using _ = directory
  const sealed = await back(path, output)
  const target = join(directory.path, 'other')
  await mkdir(target, { mode: 0o700 })
  await initialise(target, { curve: 'P-384' })
  const own = (await readDirectory(target)).keys
  const request = { directory: target, pins, sealed }
  await assert.rejects(restore(request), refuses('keyserver.directory_not_empty'))
  assert.equal((await readDirectory(target)).keys.length, 2)
  await restore({ ...request, merge: true })
  const { keys } = await readDirectory(target)
  assert.deepEqual(
    keys
      .filter((key) => !key.hidden && key.prefix === '')
      .map(({ kid }) => kid)
      .sort(),
    own.map(({ kid }) => kid).sort(),
    'its own keys stay the advertised ones',
  )
  assert.equal(keys.length, 7)
  const again = await restore({ ...request, merge: true })
  assert.deepEqual(again.restored, [], 'a second time there is nothing to do')
})

test('what was destroyed since the backup stays destroyed unless revived', async () => {
  const { directory, path, output } = await directoryWithPast()
  await using _ = directory
  const sealed = await back(path, output)
  const hidden = (await readDirectory(path)).keys.filter((key) => key.hidden).map(({ kid }) => kid)
  await retire(path, { kids: hidden, force: true })
  const kept = await restore({ directory: path, pins, sealed })
  assert.deepEqual([...kept.destroyed].sort(), [...hidden].sort())
  assert.equal((await readDirectory(path)).keys.length, 3)
  const revived = await restore({ directory: path, pins, sealed, revive: true })
  assert.deepEqual([...revived.restored].sort(), [...hidden].sort())
  assert.equal((await listKeys(path)).keys.filter((key) => key.state === 'hidden').length, 2)
})

test('killed after any effect of a restore, the directory is refused until the restore is run again', async () => {
  const { directory, path, output } = await directoryWithPast()
  await using _ = directory
  const sealed = await back(path, output)
  const wanted = (await readDirectory(path)).keys.map(({ file }) => file)
  const url = pathToFileURL(join(import.meta.dirname, 'restore.ts')).href
  for (let stop = 1; ; stop += 1) {
    const target = join(directory.path, `restored-${stop}`)
    const script = `
      import { subscribe } from 'node:diagnostics_channel'
      import { readFile } from 'node:fs/promises'
      import { Secret } from '@holdfast/base'
      import { createPins } from '@holdfast/seal'
      const { restore } = await import(process.argv[1])
      let effects = 0
      subscribe('holdfast:effect', () => {
        effects += 1
        if (effects === ${stop}) process.kill(process.pid, 'SIGKILL')
      })
      const passphrase = () => Promise.resolve(Secret.copy(${JSON.stringify(passphrase)}))
      const sealed = await readFile(${JSON.stringify(output)}, 'utf8')
      await restore({ directory: ${JSON.stringify(target)}, pins: createPins({ passphrase }), sealed })`
    const { code } = await run(process.execPath, ['--input-type=module', '-e', script, url], {
      accept: [0, 137],
      cwd: import.meta.dirname,
    })
    if (code === 0) {
      assert.ok(stop > wanted.length)
      break
    }
    const attempt = serve({ directory: target, port: 0, log: silentLog })
    const outcome = await attempt.then(
      async (server) => {
        await server[Symbol.asyncDispose]()
        return 'served'
      },
      (error: unknown) => (isFault(error) ? error.code : messageOf(error)),
    )
    const { keys } = await readDirectory(target)
    if (keys.length < wanted.length) assert.notEqual(outcome, 'served', `after effect ${stop}`)
    await restore({ directory: target, pins, sealed })
    assert.deepEqual(
      (await readDirectory(target)).keys.map(({ file }) => file).sort(),
      [...wanted].sort(),
    )
    await rm(target, { recursive: true })
    assert.ok(stop < 40)
  }
})

test('a damaged key is noticed when the backup is made', async () => {
  await using directory = await scratch()
  const { path } = directory
  await initialise(path, { curve: 'P-256' })
  const bad = makeKey('exchange', 'P-256')
  await writeKey(path, { ...bad, jwk: { ...bad.jwk, d: makeKey('exchange', 'P-256').jwk.d } })
  await assert.rejects(backup({ directory: path, policy, pins, output: join(path, 'b') }, 0))
  assert.ok(!(await readdir(path)).includes('b'))
})

test('what is not a backup is refused without quoting it, and nothing is written', async () => {
  await using directory = await scratch()
  const { path } = directory
  const nothing = join(path, 'target')
  const attempt = async (text: string) => {
    const sealed = await seal(pins, parsePolicy('null', {}), Secret.copy(text))
    await assert.rejects(openBackup(pins, sealed), (error) => {
      assert.ok(isFault(error, 'keyserver.backup_malformed'), messageOf(error))
      return true
    })
    await assert.rejects(restore({ directory: nothing, pins, sealed }))
    await assert.rejects(stat(nothing))
  }
  const file = { created: 0, jwk: '{}' }
  const document = (change: object) =>
    JSON.stringify({ version: 1, made: 0, files: [], state: {}, usage: {}, ...change })
  for (const name of ['../x.jwk', '/etc/x.jwk', 'p/../x.jwk', 'p/a/b/x.jwk', 'x.txt', '.jwk']) {
    await attempt(document({ files: [{ ...file, file: name }] }))
  }
  for (const text of ['', '{', 'null', document({}), document({ version: 2 })]) await attempt(text)
  await fc.assert(fc.asyncProperty(fc.json(), attempt), { numRuns: 20 })
})
