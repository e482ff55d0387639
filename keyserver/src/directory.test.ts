import assert from 'node:assert/strict'
import { chmod, mkdir, rename, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault, run } from '@holdfast/base'
import { generateEcKey } from '@holdfast/crypto'
import fc from 'fast-check'
import { readDirectory, requireTightPermissions } from './directory.ts'
import { keyFileText, makeKey, parseKey, writeKey } from './key.ts'
import { scratch, tangdKeygen } from './server-fixture.ts'

test('what tangd-keygen writes is read, and a leading dot hides', async () => {
  await using directory = await scratch()
  await tangdKeygen(directory.path)
  const first = await readDirectory(directory.path)
  assert.deepEqual(first.problems, [])
  assert.deepEqual(first.keys.map((key) => key.use).sort(), ['exchange', 'signing'])
  assert.ok(first.keys.every((key) => key.crv === 'P-521' && !key.hidden))
  assert.ok(first.keys.every((key) => key.file === `${key.kid}.jwk`))
  const [key] = first.keys
  assert.ok(key)
  await rename(join(directory.path, key.file), join(directory.path, `.${key.file}`))
  const second = await readDirectory(directory.path)
  assert.equal(second.keys.find(({ kid }) => kid === key.kid)?.hidden, true)
  assert.notEqual(first.stamp, second.stamp)
})

test('all five thumbprints are those jose computes', async () => {
  const key = makeKey('exchange', 'P-384')
  const text = keyFileText(key.jwk, 'exchange')
  const parsed = parseKey(text, 'k.jwk')
  for (const [index, hash] of ['S1', 'S224', 'S256', 'S384', 'S512'].entries()) {
    const { stdout } = await run('jose', ['jwk', 'thp', '-i-', '-a', hash], { input: text })
    assert.equal(parsed.thumbprints[index], stdout.toString().trim())
  }
})

test('the newest exchange key comes first, whatever its name', async () => {
  await using directory = await scratch()
  const keys = [1, 2, 3, 4, 5].map(() => makeKey('exchange', 'P-256'))
  for (const [index, key] of keys.entries()) {
    await writeKey(directory.path, key)
    await utimes(join(directory.path, `${key.kid}.jwk`), 1_000 + index, 1_000 + index)
  }
  const { keys: read } = await readDirectory(directory.path)
  assert.deepEqual(
    read.map((key) => key.kid),
    keys.map((key) => key.kid).reverse(),
  )
})

test('foreign, damaged and dangerous files are skipped with a reason', async () => {
  await using directory = await scratch()
  const file = (name: string, text: string) =>
    writeFile(join(directory.path, name), text, { mode: 0o600 })
  const { stdout: rsa } = await run('jose', ['jwk', 'gen', '-i', '{"alg":"RS256"}'])
  const { stdout: oct } = await run('jose', ['jwk', 'gen', '-i', '{"alg":"HS256"}'])
  await file('rsa.jwk', rsa.toString())
  await file('oct.jwk', oct.toString())
  await file('empty.jwk', '')
  await file('list.jwk', '[]')
  await file('half.jwk', keyFileText(makeKey('exchange', 'P-256').jwk, 'exchange').slice(0, 40))
  await file('huge.jwk', ' '.repeat(70_000))
  await file('notes.txt', 'not a key')
  await mkdir(join(directory.path, 'folder.jwk'))
  const { keys, problems } = await readDirectory(directory.path)
  assert.deepEqual(keys, [])
  assert.deepEqual(problems.map((problem) => problem.file).sort(), [
    'empty.jwk',
    'folder.jwk',
    'half.jwk',
    'huge.jwk',
    'list.jwk',
    'oct.jwk',
    'rsa.jwk',
  ])
  assert.ok(problems.every((problem) => !problem.reason.includes(rsa.toString().slice(20, 40))))
})

test('a key others may write or everybody may read is refused', async () => {
  await using directory = await scratch()
  await tangdKeygen(directory.path)
  const accepted = async () => {
    try {
      await requireTightPermissions(await readDirectory(directory.path))
      return true
    } catch (error) {
      assert.ok(isFault(error, 'keyserver.permissions_loose'), String(error))
      return false
    }
  }
  const [key] = (await readDirectory(directory.path)).keys
  assert.ok(key)
  const path = join(directory.path, key.file)
  const verdicts: boolean[] = []
  for (const [folder, mode] of [
    [0o700, 0o440],
    [0o750, 0o440],
    [0o700, 0o460],
    [0o700, 0o442],
    [0o770, 0o440],
    [0o777, 0o440],
    [0o755, 0o444],
    [0o750, 0o444],
  ] as const) {
    await chmod(directory.path, folder)
    await chmod(path, mode)
    verdicts.push(await accepted())
  }
  assert.deepEqual(verdicts, [true, true, false, false, false, false, false, true])
})

test('any text in a key file is a key or a problem, never a crash', async () => {
  const good = keyFileText(generateEcKey('P-256'), 'exchange')
  const damaged = fc
    .tuple(fc.nat(good.length - 1), fc.string({ maxLength: 3 }))
    .map(([at, text]) => good.slice(0, at) + text + good.slice(at + 1))
  const anything = fc.oneof(fc.string(), fc.json(), damaged)
  fc.assert(
    fc.property(anything, (text) => {
      try {
        assert.equal(parseKey(text, 'f.jwk').thumbprints.length, 5)
      } catch (error) {
        assert.ok(isFault(error, 'keyserver.key_malformed'), String(error))
        assert.ok(!(error as Error).message.includes('"d"'))
      }
    }),
    { numRuns: 500 },
  )
})
