import assert from 'node:assert/strict'
import { cp, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { isFault, run } from '@holdfast/base'
import { type CurveName, curveNames } from '@holdfast/crypto'
import fc from 'fast-check'
import { resumeChange, type Step } from './change.ts'
import { readDirectory } from './directory.ts'
import { listKeys } from './inventory.ts'
import { type KeyUse, makeKey, type StoredKey, writeKey } from './key.ts'
import { addPrefix, markCompromised } from './prefix.ts'
import { proveKeys } from './proof.ts'
import { initialise, planRotation, rotate } from './rotate.ts'
import { scratch } from './server-fixture.ts'

const source = (name: string) => pathToFileURL(join(import.meta.dirname, name)).href

/**
 * Runs `code` in a process of its own that is killed right after its `stop`-th write, rename or
 * removal. Says whether it was killed; otherwise it ended by itself.
 */
async function killedAfter(stop: number, imports: string, code: string): Promise<boolean> {
  const script = `
    import { subscribe } from 'node:diagnostics_channel'
    ${imports}
    let effects = 0
    subscribe('holdfast:effect', () => {
      effects += 1
      if (effects === ${stop}) process.kill(process.pid, 'SIGKILL')
    })
    ${code}`
  const { code: exit } = await run(process.execPath, ['--input-type=module', '-e', script], {
    accept: [0, 137],
    cwd: import.meta.dirname,
  })
  return exit === 137
}

const advertised = (keys: readonly StoredKey[], use: KeyUse) =>
  keys.filter((key) => key.use === use && key.prefix === '' && !key.hidden)

test('killed after any effect of a rotation, keys stay advertised and a resume finishes it', async () => {
  await using template = await scratch()
  await initialise(template.path, { curve: 'P-256' })
  const before = (await readDirectory(template.path)).keys
  for (let stop = 1; ; stop += 1) {
    await using copy = await scratch()
    const path = join(copy.path, 'keys')
    await cp(template.path, path, { recursive: true, preserveTimestamps: true })
    const killed = await killedAfter(
      stop,
      `import { rotate } from '${source('rotate.ts')}'`,
      `await rotate(${JSON.stringify(path)})`,
    )
    const during = (await readDirectory(path)).keys
    for (const use of ['signing', 'exchange'] as const) {
      assert.ok(advertised(during, use).length > 0, `no ${use} key advertised after effect ${stop}`)
    }
    for (const key of before) assert.ok(during.some(({ kid }) => kid === key.kid))
    await resumeChange(path)
    const { keys, problems } = await readDirectory(path)
    assert.deepEqual(problems, [])
    assert.equal(keys.length, 4)
    for (const key of keys) {
      assert.equal(
        key.hidden,
        before.some(({ kid }) => kid === key.kid),
        `after effect ${stop}`,
      )
    }
    await proveKeys(keys)
    const left = await readdir(join(path, '.holdfast'))
    assert.ok(!left.includes('change.json'))
    if (!killed) {
      assert.ok(stop > 10, `a rotation has more than ${stop} effects`)
      break
    }
    assert.ok(stop < 60)
  }
})

test('killed after any effect of a revocation, the key is either whole or gone', async () => {
  await using template = await scratch()
  await initialise(template.path, { curve: 'P-256' })
  const { created } = await addPrefix(template.path, 'one')
  await addPrefix(template.path, 'two')
  const kid = created[0]?.kid
  for (let stop = 1; ; stop += 1) {
    await using copy = await scratch()
    const path = join(copy.path, 'keys')
    await cp(template.path, path, { recursive: true, preserveTimestamps: true })
    const killed = await killedAfter(
      stop,
      `import { revokePrefix } from '${source('prefix.ts')}'`,
      `await revokePrefix(${JSON.stringify(path)}, 'one')`,
    )
    await resumeChange(path)
    const { keys, prefixes } = await readDirectory(path)
    const report = (await listKeys(path)).keys.find((key) => key.kid === kid)
    const isThere = keys.some((key) => key.kid === kid)
    assert.equal(report?.state, isThere ? 'advertised' : 'retired')
    assert.equal(prefixes.includes('one'), isThere)
    assert.ok(prefixes.includes('two'))
    assert.equal(advertised(keys, 'exchange').length, 1)
    if (!killed) {
      assert.equal(isThere, false)
      assert.ok(stop > 4)
      break
    }
    assert.ok(stop < 40)
  }
})

const storedKey = fc
  .record({
    use: fc.constantFrom<KeyUse>('signing', 'exchange'),
    crv: fc.constantFrom<CurveName>(...curveNames),
    hidden: fc.boolean(),
    prefix: fc.constantFrom('', 'a', 'b'),
    name: fc.string({ minLength: 1, maxLength: 6, unit: fc.constantFrom(...'abcdef') }),
  })
  .map(({ use, crv, hidden, prefix, name }): StoredKey => {
    const file = `${prefix === '' ? '' : `p/${prefix}/`}${hidden ? '.' : ''}${name}.jwk`
    const publicKey = { kty: 'EC', crv, x: name, y: name } as const
    const base = {
      thumbprints: [name],
      crv,
      privateKey: undefined,
      publicKey,
      created: 0,
      changed: 0,
    }
    return { ...base, use, hidden, prefix, file, kid: name }
  })

test('a rotation plan creates before it hides, and hides exactly what it replaces', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(storedKey, { selector: (key) => key.kid, maxLength: 12 }),
      fc.subarray<KeyUse>(['signing', 'exchange'], { minLength: 1 }),
      fc.option(fc.constantFrom<CurveName>(...curveNames), { nil: undefined }),
      fc.constantFrom('', 'a'),
      (keys, uses, curve, prefix) => {
        const steps = planRotation(keys, {
          uses,
          prefix,
          ...(curve === undefined ? {} : { curve }),
        })
        const kinds = steps.map((step) => step.do)
        assert.ok(!kinds.includes('create') || kinds.lastIndexOf('create') < firstHide(steps))
        const wanted = prefix === '' ? uses : uses.filter((use) => use === 'exchange')
        const created = steps.flatMap((step) => (step.do === 'create' ? step.use : []))
        assert.deepEqual(created, wanted)
        const hidden = steps.flatMap((step) => (step.do === 'hide' ? step.kid : []))
        const replaced = keys.filter(
          (key) => key.prefix === prefix && !key.hidden && wanted.includes(key.use),
        )
        assert.deepEqual(
          hidden,
          replaced.map((key) => key.kid),
        )
        for (const step of steps) {
          if (step.do !== 'create') continue
          const old = replaced.find((key) => key.use === step.use)
          assert.equal(step.crv, curve ?? old?.crv ?? 'P-521')
        }
      },
    ),
  )
})

function firstHide(steps: readonly Step[]): number {
  const index = steps.findIndex((step) => step.do === 'hide')
  return index < 0 ? steps.length : index
}

test('rotating the exchange key alone keeps the signing key, and a curve can be chosen', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  const signing = advertised((await readDirectory(directory.path)).keys, 'signing')
  const { created } = await rotate(directory.path, { uses: ['exchange'], curve: 'P-384' })
  assert.deepEqual(
    created.map(({ use, crv }) => [use, crv]),
    [['exchange', 'P-384']],
  )
  const { keys } = await readDirectory(directory.path)
  assert.deepEqual(
    advertised(keys, 'signing').map(({ kid }) => kid),
    signing.map(({ kid }) => kid),
  )
  assert.deepEqual(
    advertised(keys, 'exchange').map(({ kid }) => kid),
    created.map(({ kid }) => kid),
  )
})

test('a key with a name of its own is hidden without overwriting an older one', async () => {
  await using directory = await scratch()
  await run('tangd-keygen', [directory.path, 'sig', 'exc'])
  await rotate(directory.path)
  const made = (await readDirectory(directory.path)).keys
  await run('tangd-keygen', [directory.path, 'sig', 'exc'])
  await rotate(directory.path)
  const { keys } = await readDirectory(directory.path)
  assert.equal(keys.length, 8, 'two rounds by each')
  for (const key of made) assert.ok(keys.some(({ kid }) => kid === key.kid))
})

test('two changes at once both happen, one after the other', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  await Promise.all([
    rotate(directory.path),
    rotate(directory.path),
    addPrefix(directory.path, 'x'),
  ])
  const { keys } = await readDirectory(directory.path)
  assert.equal(keys.filter((key) => key.prefix === '').length, 6)
  assert.equal(advertised(keys, 'exchange').length, 1)
})

test('prefix names are checked, and one name is one prefix', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  const refused = (code: string) => (error: unknown) => isFault(error, `keyserver.${code}`)
  for (const name of ['', '..', '.a', 'A', 'a/b', 'a b', 'a'.repeat(64), '../../etc']) {
    await assert.rejects(addPrefix(directory.path, name), refused('prefix_invalid'))
  }
  await addPrefix(directory.path, 'a')
  await assert.rejects(addPrefix(directory.path, 'a'), refused('prefix_exists'))
  await assert.rejects(rotate(directory.path, { prefix: 'b' }), refused('prefix_absent'))
  const { created } = await rotate(directory.path, { prefix: 'a', curve: 'P-521' })
  assert.equal(created.length, 1)
  const { keys } = await readDirectory(directory.path)
  assert.deepEqual(
    keys
      .filter((key) => key.prefix === 'a')
      .map(({ crv, hidden }) => `${crv} ${hidden ? 'hidden' : 'advertised'}`)
      .sort(), // made within one tick of the clock they stand in the order of their names
    ['P-256 hidden', 'P-521 advertised'],
  )
})

test('a compromised key is marked, and the mark is kept and shown', async () => {
  await using directory = await scratch()
  await initialise(directory.path, { curve: 'P-256' })
  const [key] = advertised((await readDirectory(directory.path)).keys, 'exchange')
  const [sha1 = ''] = key?.thumbprints ?? []
  await markCompromised(directory.path, [sha1], 'carried to site 4', 1_000)
  await rotate(directory.path)
  const report = (await listKeys(directory.path)).keys.find((each) => each.kid === key?.kid)
  assert.deepEqual(report?.compromised, { at: 1_000, note: 'carried to site 4' })
  assert.equal(report?.state, 'hidden')
  await assert.rejects(markCompromised(directory.path, ['nothing'], '', 0), (error) =>
    isFault(error, 'keyserver.key_absent'),
  )
})

test('a hidden exchange key beside new ones still proves itself', async () => {
  await using directory = await scratch()
  for (const crv of curveNames) await writeKey(directory.path, makeKey('exchange', crv))
  await initialise(directory.path).catch(() => undefined)
  const proven = await proveKeys((await readDirectory(directory.path)).keys)
  assert.equal(proven.length, 3)
})
